"""What all packages may use: sets, byte budgets, deadlines, slices of work, file permissions and timestamps."""
