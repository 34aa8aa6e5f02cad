"""The page of `bas report`: `data.py` says what it holds, `file.py` puts that and the scripts beside it into one file."""
