"""Temporal heads on cached features. Never imports `extract`."""
