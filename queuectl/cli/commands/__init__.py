"""One command line verb a module."""
