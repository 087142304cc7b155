"""`python -m tabor`, for where the console script is not on the path."""

from tabor.cli import run

if __name__ == "__main__":
    run()
