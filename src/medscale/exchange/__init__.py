"""Formats of other programs: MLflow, Hugging Face, Croissant, DICOM SR (extra `exchange`)."""
