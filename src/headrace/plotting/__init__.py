"""Draws: SVG by hand, and pages that stand alone. Programs share it, and it knows none of them."""
