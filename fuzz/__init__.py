"""Fuzzing: whatever is read from outside ends in an answer or in one of our own errors, in bounded time and memory.

``python -m fuzz`` runs the table of :mod:`fuzz.table`; docs/security.md says what was found.
"""
