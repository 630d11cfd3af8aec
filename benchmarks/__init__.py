"""Measurements of this project beside others; see ``benchmarks/README.md``."""
