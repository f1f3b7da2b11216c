"""The folders of a spool and every move of a job file between them. Nothing else renames a job file."""
