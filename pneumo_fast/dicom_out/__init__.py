"""Predictions as DICOM objects, to lie in a PACS beside the images that they are of."""
