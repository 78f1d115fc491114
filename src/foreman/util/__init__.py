"""What all packages may use: types of time, sets, byte budgets, deadlines, slices of work, file permissions, timestamps."""
