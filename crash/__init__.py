"""Attacks what foreman promises of jobs: kills, power cuts and zombies, and a history that is checked."""
