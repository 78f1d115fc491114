"""Runs jobs: their attempts at the target, their outcomes, due jobs and retention."""
