"""What is true: rasters and vectors as class masks on the pixels of the chips."""
