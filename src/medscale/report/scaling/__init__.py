"""The chapter scaling."""
