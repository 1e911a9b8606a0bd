"""The chapter result."""
