"""`python -m facenas.cli` is the console script."""

from facenas.cli.app import main

if __name__ == "__main__":
    main()
