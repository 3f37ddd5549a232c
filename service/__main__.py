"""`python -m service` and the console script `mailbus`."""

from service.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
