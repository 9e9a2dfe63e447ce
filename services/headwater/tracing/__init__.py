"""Tracing: spans of what was committed, once."""
