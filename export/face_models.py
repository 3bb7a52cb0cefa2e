"""Builds the face-recognition models: the same as `id3pm build-faces`."""

import sys

from id3pm.cli import main

if __name__ == "__main__":
    main(["build-faces", *sys.argv[1:]])
