"""Builds a bundle's engines: the same as `id3pm build`."""

import sys

from id3pm.cli import main

if __name__ == "__main__":
    main(["build", *sys.argv[1:]])
