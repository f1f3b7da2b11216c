"""Runs one attempt as a process tree on this machine, and says how it ended. Moves no job files."""
