"""Networks as plain modules, and a registry over them and timm; they know nothing of processes or devices."""
