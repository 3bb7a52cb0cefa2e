"""The code blocks of the documentation, and the commands in them."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "client/README.md", "demo/README.md", "deploy/README.md") + tuple(
    sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md"))
)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?:\A|\n)\n((?: {4}.*\n)+(?:\n(?: {4}.*\n)+)*)")
PROGRAMS = (
    "cd",
    "curl",
    "docker",
    "envoy",
    "helm",
    "id3pm",
    "id3pm-client",
    "kubectl",
    "make",
    "mkdir",
    "openssl",
    "pip",
    "python",
    "sh",
    "torchrun",
    "(",
)


@dataclasses.dataclass(frozen=True)
class Block:
    """One block: `language` as a fence names it, `sh` for an indented one with commands, else empty."""

    page: str
    language: str
    text: str

    @property
    def commands(self) -> list[str]:
        """The commands of a shell block, without comments; one that spans lines is one command."""
        found: list[str] = []
        for line in self.text.replace("\\\n", " ").splitlines():
            if found and (found[-1].endswith("|") or found[-1].count("'") % 2):
                found[-1] += f"\n{line}"
            elif line.strip() and not line.lstrip().startswith("#"):
                found.append(re.sub(r"\s+# .*$", "", line.strip()))
        return found


def blocks() -> list[Block]:
    """All blocks of all pages, in their order within a page."""
    found = []
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        found += [Block(page, language, body) for language, body in FENCE.findall(text)]
        for body in INDENTED.findall(FENCE.sub("", text)):
            lines = re.sub(r"^ {4}", "", body, flags=re.MULTILINE)
            found.append(Block(page, "sh" if lines.split()[0].startswith(PROGRAMS) else "", lines))
    return found
