"""The chapter overview: data, accuracy and time of a study's classification runs."""
