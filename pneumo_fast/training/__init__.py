"""A dataset becomes a run: epochs, validation, checkpoints."""
