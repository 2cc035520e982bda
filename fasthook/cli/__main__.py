"""`python -m fasthook.cli`: the same as the command `fasthook`."""

from fasthook.cli import main

if __name__ == "__main__":
    main()
