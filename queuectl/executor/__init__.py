"""Runs one attempt as a process tree on this machine and says how it ended. Knows no job files."""
