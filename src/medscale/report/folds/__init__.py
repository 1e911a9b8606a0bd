"""The chapter folds: the scores of a cross-validation, by fold and pooled."""
