"""What jobs ask of machines: GPUs, memory, wall time, money, containers and SLURM."""
