"""Opinions on how many replicas are wanted, one file each."""
