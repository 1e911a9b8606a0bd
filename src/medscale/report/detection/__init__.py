"""The chapter detection."""
