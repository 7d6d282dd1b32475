"""Exit codes that a shell knows."""

INTERRUPTED = 130
"""Ctrl-C came before the command was done."""
