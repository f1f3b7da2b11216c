"""A worker: its loop, its idle sleep, its maintenance, and the processes that are workers."""
