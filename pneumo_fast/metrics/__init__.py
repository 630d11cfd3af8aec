"""Numbers from labels, logits and patients: no files, no models."""
