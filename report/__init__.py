"""`bas report`: runs to one page that shows what they found and missed. `make.py` is the main path."""
