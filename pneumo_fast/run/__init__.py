"""What training leaves and judging opens: the run folder, its checkpoints, the model."""
