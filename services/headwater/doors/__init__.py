"""Doors: the world's way in and out."""
