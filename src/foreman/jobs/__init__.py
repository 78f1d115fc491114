"""A job as a value: its states, and which state may follow which."""
