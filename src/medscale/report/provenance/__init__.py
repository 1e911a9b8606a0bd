"""The chapter provenance."""
