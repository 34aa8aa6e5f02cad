"""Reduced stores: rows projected by PCA, kept in 8 bits, or both."""
