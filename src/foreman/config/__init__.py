"""The settings of foreman: read, checked, and kept as one value."""
