"""The chapter export: exported networks compared with PyTorch."""
