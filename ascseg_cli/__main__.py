"""`python -m ascseg_cli` is the command `ascseg`."""

from ascseg_cli.cli import main

if __name__ == "__main__":
    main()
