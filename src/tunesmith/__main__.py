"""`python -m tunesmith` is `tunesmith`."""

from .cli import main

main()
