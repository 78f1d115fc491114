"""Jobs over HTTP: submit, read, follow and change them (docs/jobs.md)."""
