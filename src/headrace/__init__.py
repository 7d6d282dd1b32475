"""Headrace: token-centric orchestration for LLM serving."""

__version__ = "0.1.0"
compiled_from: str | None = None
"""A digest of the sources that this was compiled from; None where nothing is compiled."""
