"""Sample pictures that come with the package; `demo/README.md` says where they are from.

Attributes:
    PEOPLE: Folder of eight 256 px portraits, PNG, of people who do not exist: a GAN made them, and the demo bundle's
        training did not see them.
    PHOTOGRAPH: JPEG of a camera, 320 px, a NASA portrait in the public domain; for tests and checks, never shown.
"""

from pathlib import Path

PEOPLE = Path(__file__).with_name("people")
PHOTOGRAPH = Path(__file__).with_name("astronaut.jpg")
