"""Batches of a split, normalized, on the device."""
