"""What workers and people tell each other through files: the registry, the run lock, pause, permissions."""
