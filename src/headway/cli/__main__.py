"""``python -m headway.cli``: the same as the command ``headway``."""

from headway.cli.entry import main

if __name__ == "__main__":
    main()
