"""The central types: messages, state, turns, deciders, effectors, executions."""
