"""Lets `python -m synergymesh.cli` be the command line."""

from synergymesh.cli.app import main

if __name__ == "__main__":
    main()
