"""From raw downloads to training-ready batches: sources, audit, split, preprocess, shards, loader, augment."""
