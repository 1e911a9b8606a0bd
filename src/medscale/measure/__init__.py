"""What a study measures besides its runs: preprocessing against Dask workers, ways to load training batches."""
