"""The SQL that changes jobs: each function is one step of a transaction, in the database's thread.

They take the transaction first, return plain values and know nothing of Deferreds.
"""
