"""`python -m dubito` is the command `dubito`."""

from dubito.cli import main

if __name__ == "__main__":
    main()
