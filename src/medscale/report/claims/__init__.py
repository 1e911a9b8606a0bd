"""The chapter claims: statements of the paper, measured anew, each with a verdict."""
