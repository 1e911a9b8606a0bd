"""The workflow: what Snakemake's rules need, checks before a run, explanations, the crate."""
