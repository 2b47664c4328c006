"""A small world with known truth, written as real files: COGs, a static STAC catalog, OpenStreetMap."""
