"""Use of trained runs: prediction on new images, export to other formats, the HTTP service."""
