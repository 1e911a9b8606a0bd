"""The chapter overview."""
