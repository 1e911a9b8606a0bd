"""The chapter variants: a study compared with itself, one setting changed."""
