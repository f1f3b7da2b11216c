"""A worker: the loop, what it does when idle, and the processes that are workers."""
