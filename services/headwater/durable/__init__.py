"""Deterministic async functions: a library that knows no messages."""
