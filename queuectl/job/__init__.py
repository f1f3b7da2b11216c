"""The job record: its fields, how they are checked, JSON both ways, and what follows from an outcome. Pure."""
