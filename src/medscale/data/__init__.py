"""From raw downloads to augmented batches: dataset kinds, audit, index, shards, loader."""
