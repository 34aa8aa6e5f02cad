"""`bas ablate`: recipes by seeds to one table. `loop.py` is the main path."""
