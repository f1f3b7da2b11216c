"""The settings of a spool and of its queues: their keys, the files, and reading them again while workers run."""
