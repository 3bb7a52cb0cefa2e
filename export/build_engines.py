"""Builds a bundle's engines: the same as `python -m id3pm.export.build`."""

from id3pm.export.build import main

if __name__ == "__main__":
    main()
