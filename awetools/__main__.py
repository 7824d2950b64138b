"""`python -m awetools bias ...` is `awe bias ...`."""

from .commands.awe import main

if __name__ == "__main__":
    main()
