"""What changes jobs, in SQL: each function is one step within a transaction, in the database's thread.

They take the transaction first, return plain values and know nothing of Deferreds.
"""
