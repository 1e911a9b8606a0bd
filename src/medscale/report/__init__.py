"""Figures, tables and facts of studies; each chapter is a folder, listed in chapters.py."""
