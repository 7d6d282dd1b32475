"""Figures as people read them: tables for the terminal, pages with plots."""
