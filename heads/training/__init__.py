"""Training a head on cached features, and what is kept of it."""
