"""Networks as plain PyTorch modules, which know nothing of processes or devices."""
