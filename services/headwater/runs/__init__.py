"""Runs: the decider that hosts agents."""
