"""What keeps the start of a command short: a small dataclass, and orjson, imported at its first use."""
