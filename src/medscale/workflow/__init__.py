"""The workflow: parameters of Snakemake's rules, checks before a run, explanations, the crate."""
