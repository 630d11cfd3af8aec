"""Synthetic radiographs with tables like RSNA's, for tests and demonstrations."""
