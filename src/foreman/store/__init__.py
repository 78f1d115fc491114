"""The durable record of jobs and artifacts: its interface and errors, and the database behind it."""
