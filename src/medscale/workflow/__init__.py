"""What the Snakemake rules ask of the package, and what is checked before and packed after a study."""
