"""What workers and people tell each other through files: the registry, commands, run locks, pause, permissions."""
