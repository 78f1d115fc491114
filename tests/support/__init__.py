"""What tests of several modules need; the table in CONTRIBUTING says which is for what."""
