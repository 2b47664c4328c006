"""Where: area of interest, grid, chips, shards, reading windows and splits."""
