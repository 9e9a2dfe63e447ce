"""Admission: the decider that deduplicates, counts and places tasks."""
