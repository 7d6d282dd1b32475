"""DECIDE: plain synchronous Python. No clock, no I/O, no logging, no global randomness.

Time comes in as ``now`` (seconds on any monotonic scale), randomness as an ``Rng``.
Events go in, effects come out, reasons are data. A linter checks the imports.
"""
