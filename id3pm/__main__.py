"""`python -m id3pm`: what `id3pm` does, for launchers that start modules (torchrun, accelerate)."""

from id3pm.cli import main

if __name__ == "__main__":
    main()
