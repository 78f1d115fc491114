"""What foreman adds to a chat, measured beside others: ``python -m benchmarks`` (see README.md here)."""
