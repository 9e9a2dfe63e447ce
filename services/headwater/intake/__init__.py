"""Intake: the decider that takes foreign tasks in."""
