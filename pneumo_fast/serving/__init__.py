"""A DICOM node that scores what it receives and forwards the results."""
