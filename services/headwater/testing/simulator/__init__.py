"""The simulator: the whole platform over the local log in virtual time, from one seed, as things break.

    python -m headwater.testing.simulator --seeds 500

Real deciders, effectors and envelopes; a world outside that remembers every call; crashes, zombies,
unknown commits, late and double records, garbage, versions that come and go, and people who interfere.
After every history the thirteen invariants are checked, the last of which compares each run with itself
without faults; a history that fails is reduced to the shortest that still does.
"""
