"""What all packages may use: types of time, tracked sets, byte budgets, deadlines, work in slices, file permissions, timestamps."""
