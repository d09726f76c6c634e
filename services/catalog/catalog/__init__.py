"""catalog: the shop's products, read from a file and read again when it changes."""
