"""The chapter enhance."""
