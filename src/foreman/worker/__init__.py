"""Runs jobs: takes them, tries them at the target, and deletes what has been kept long enough."""
