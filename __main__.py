"""`python -m bas`: the same as the console script `bas`."""

from .cli import main

main()
