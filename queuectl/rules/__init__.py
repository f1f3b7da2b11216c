"""Rule files, the moments at which rules are due, and queueing their jobs. A kind of rule is a room of its own."""
