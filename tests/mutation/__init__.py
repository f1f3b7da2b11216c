"""Takes one protection out of the code at a time, and sees that a test fails; `python -m tests.mutation --help`."""
