"""The command line, as `python -m mdgnn`."""

from mdgnn.cli import main

if __name__ == "__main__":
    main()
