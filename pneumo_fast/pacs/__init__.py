"""Talking to a PACS: DICOMweb, and DICOM nodes."""
