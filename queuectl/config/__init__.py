"""The settings of a spool: their keys, the file, and reading it again while workers run."""
