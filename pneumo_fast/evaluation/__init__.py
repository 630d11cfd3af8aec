"""A run's model on a split: predictions, thresholds, metrics, comparison."""
