"""The page of `bas report`: what it holds (`data.py`), and the one file made of that, the scripts and the style."""
