"""Tells people about jobs: what a notification says, and how it is sent by mail or to a web address."""
