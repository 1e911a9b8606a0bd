"""The chapter variants."""
