"""What was seen: catalogs, scenes, and the tables of endpoints and collections."""
