"""Jobs over HTTP: handed over, looked at, followed, changed (docs/jobs.md)."""
