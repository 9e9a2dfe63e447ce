"""Views: projections that people read."""
