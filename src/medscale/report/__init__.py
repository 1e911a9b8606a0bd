"""Figures, tables, numbers and the paper, all from result folders."""
