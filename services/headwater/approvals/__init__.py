"""Approvals: the decider that holds what people are asked, and takes their decisions."""
