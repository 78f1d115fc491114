"""The durable record of jobs and artifacts: SQLite, one writer with group commit, readers beside it."""
