"""Stores shared between people and machines: manifests, places that hold a store, push, pull, merge."""
