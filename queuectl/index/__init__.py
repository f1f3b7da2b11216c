"""The SQLite mirror of the folders: suggests the next job, answers counts and lists, and may be deleted."""
