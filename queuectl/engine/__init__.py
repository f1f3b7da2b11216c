"""Runs attempts on a cluster: packs of attempts in a shared folder, and what becomes of each. Moves no job files."""
