"""Resources of jobs: GPUs, memory, wall time, money, containers and SLURM."""
