"""What the operating system does for queuectl: durable files, safe reading, locks, processes, events. Knows no jobs."""
