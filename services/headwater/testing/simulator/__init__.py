"""The simulator: the whole platform over the local log in virtual time, from one seed, as things break.

    python -m headwater.testing.simulator --seeds 500

Real deciders, effectors and envelopes; a world outside that remembers every call; crashes, zombies,
unknown commits, late and double records, garbage, and people who interfere. After every history the
twelve invariants are checked; one that fails is reduced to the shortest that still does.
"""
