"""The ways in which batches get to the device; all of them give the same batches."""
