"""Rules: files in `rules/` that say when a job is queued. One room for each kind of `when`; the others are shared."""
