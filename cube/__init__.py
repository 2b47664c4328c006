"""What it looked like: scenes read onto a grid, harmonised, masked and composited."""
