"""`python -m ifdefault`."""

from ifdefault.cli.main import main

main()
