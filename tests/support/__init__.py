"""Helpers that several test modules use; ``README.md`` beside this file says which one is for which test."""
