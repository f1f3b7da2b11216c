"""The class Spool, and what stands behind its methods."""
