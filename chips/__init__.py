"""What we keep: the store, its layout, the chip index, publishing and checking."""
