"""The composition root: wires programs to edges and the core.

A file or a folder per command, beside what they share: `serving` (what a process that serves is
made of) and `process` (terminal, files, signals).
"""
