"""Result folders of runs: their content, and how it is written and read."""
