"""What the commands ask a running foreman, and how they read its answers."""
