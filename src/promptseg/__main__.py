"""`python -m promptseg`: the command line."""

from .apps.cli.main import main

if __name__ == "__main__":
    main()
