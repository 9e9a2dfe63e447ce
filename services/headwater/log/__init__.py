"""The log: one port, and the two logs behind it."""
