"""What was asked: the recipe, read from YAML and checked once."""
