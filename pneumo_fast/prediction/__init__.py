"""New files through a trained model: from DICOM to a table of probabilities."""
