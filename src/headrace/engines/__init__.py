"""Translate: what each engine calls things, and how it tells what it used. Text in, numbers out.

One file per dialect; `registry.dialect(name)` loads it when first asked for.
"""
