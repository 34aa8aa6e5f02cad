"""Features of other programs into a store, and a store's features out of it."""
