"""Crash tests of foreman's jobs: kills, power cuts and zombies; the recorded history is checked against the database."""
