"""What the operating system does for us: durable files, locks, processes, events. Knows no jobs."""
