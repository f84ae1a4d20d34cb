"""Notebooks run into reports, and kept."""
