"""The chapter inference."""
