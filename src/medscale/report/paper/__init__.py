"""The paper: facts and templates become LaTeX, and LaTeX becomes a PDF."""
