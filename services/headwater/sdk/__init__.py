"""What authors of agents use."""
