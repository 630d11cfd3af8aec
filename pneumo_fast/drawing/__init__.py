"""Figures as PNG; the only importer of matplotlib."""
