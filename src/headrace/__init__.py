"""Headrace: token-centric orchestration for LLM serving."""

__version__ = "0.1.0"
