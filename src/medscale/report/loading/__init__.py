"""The chapter loading."""
