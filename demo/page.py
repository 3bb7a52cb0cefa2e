"""The page: the same as `id3pm page`."""

import sys

from id3pm.cli import main

if __name__ == "__main__":
    main(["page", *sys.argv[1:]])
