"""Models: the effector that asks language models."""
