"""The settings: how they are read and checked, and the value that holds them."""
