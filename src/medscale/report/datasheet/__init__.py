"""The chapter datasheet: origin, content and preparation of a study's images."""
