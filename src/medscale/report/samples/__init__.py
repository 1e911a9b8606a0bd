"""The chapter samples: images of a study after preprocessing."""
