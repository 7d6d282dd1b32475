"""Edges: everything that touches the world outside this process."""
