"""End-to-end training: backbone and head together."""
