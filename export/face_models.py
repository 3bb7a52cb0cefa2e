"""Builds the face-recognition models: the same as `python -m id3pm.export.face.build`."""

from id3pm.export.face.build import main

if __name__ == "__main__":
    main()
