"""Addresses of bundles and engine sets on a hub or in a registry.

    hf://OWNER/NAME@REVISION        the Hugging Face Hub; the revision is a commit: 40 hexadecimal digits
    oci://REGISTRY/NAME@DIGEST      an OCI registry; the digest is sha256: and 64 hexadecimal digits

Only these two are pinned: they name the same bytes for ever. A branch (`@main`) or a tag (`:v1`) moves. It is taken by
`id3pm push`, and by `id3pm pull --resolve`, which prints the pinned address.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Literal

from id3pm.errors import TransferError

Scheme = Literal["hf", "oci"]
SCHEMES: tuple[Scheme, ...] = ("hf", "oci")
FORMS = "hf://OWNER/NAME@REVISION or oci://REGISTRY/NAME@sha256:DIGEST"
LONGEST = 512
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")

_HF_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_BRANCH = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_REGISTRY = re.compile(r"([A-Za-z0-9][A-Za-z0-9.-]{0,253}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?")
_OCI_PART = re.compile(r"[a-z0-9][a-z0-9._-]{0,127}")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclasses.dataclass(frozen=True)
class Address:
    """The address of a bundle or of an engine set.

    Attributes:
        scheme: `hf` or `oci`.
        registry: `host[:port]` of an OCI registry; empty for the hub.
        name: `owner/name` on the hub, the repository's name in a registry.
        version: Commit or branch on the hub, digest or tag in a registry; empty if none was given.
    """

    scheme: Scheme
    registry: str
    name: str
    version: str

    def __str__(self) -> str:
        place = f"{self.registry}/{self.name}" if self.registry else self.name
        mark = "" if not self.version else ":" if self.scheme == "oci" and not self.is_pinned else "@"
        return f"{self.scheme}://{place}{mark}{self.version}"

    @property
    def is_pinned(self) -> bool:
        """Whether it names the same bytes for ever."""
        return (_COMMIT if self.scheme == "hf" else _DIGEST).fullmatch(self.version) is not None

    @property
    def is_local(self) -> bool:
        """Whether the registry is on this machine, where it may do without TLS."""
        return self.registry.rpartition(":")[0] in LOOPBACK or self.registry in LOOPBACK

    def pinned(self, version: str) -> Address:
        """The same place at a commit or a digest."""
        return dataclasses.replace(self, version=version)

    def require_pinned(self) -> None:
        """Refuses what may be other bytes tomorrow.

        Raises:
            TransferError: It names a branch or a tag, or no version.
        """
        if self.is_pinned:
            return
        wanted = (
            "@ and a commit, 40 hexadecimal digits" if self.scheme == "hf" else "@sha256: and 64 hexadecimal digits"
        )
        why = f"{self.version!r} may be other files tomorrow" if self.version else "no version is named"
        raise TransferError(f"{self}: {why}; give {wanted}. This prints it: id3pm pull --resolve {self}")


def parse_address(text: str) -> Address:
    """Reads an address.

    Raises:
        TransferError: It is none; the message names the rule.
    """
    if len(text) > LONGEST:
        raise TransferError(f"an address of {len(text)} characters: at most {LONGEST} are allowed")
    scheme, found, rest = text.partition("://")
    if not found or scheme not in SCHEMES:
        raise TransferError(f"{text!r}: an address is {FORMS}")
    return _hub(text, rest) if scheme == "hf" else _registry(text, rest)


def _hub(text: str, rest: str) -> Address:
    name, at, version = rest.partition("@")
    parts = name.split("/")
    if len(parts) != 2 or not all(_HF_PART.fullmatch(part) and ".." not in part for part in parts):
        raise TransferError(f"{text!r}: a repository of the hub is OWNER/NAME, of letters, digits, '.', '_' and '-'")
    if at and _BRANCH.fullmatch(version) is None:
        raise TransferError(f"{text!r}: behind @ comes a commit, 40 hexadecimal digits")
    return Address("hf", "", name, version)


def _registry(text: str, rest: str) -> Address:
    rest, at, version = rest.partition("@")
    registry, _, name = rest.partition("/")
    tag = ""
    if not at:
        name, colon, version = name.partition(":")
        tag = version if colon else ""
    if _REGISTRY.fullmatch(registry) is None or not ("." in registry or ":" in registry or registry in LOOPBACK):
        raise TransferError(f"{text!r}: a registry is host:port, or a host's name with a dot in it")
    if not all(_OCI_PART.fullmatch(part) and ".." not in part for part in name.split("/")):
        raise TransferError(f"{text!r}: a repository's name has small letters, digits, '.', '_', '-', and '/' between")
    if at and _DIGEST.fullmatch(version) is None:
        raise TransferError(f"{text!r}: behind @ comes sha256: and 64 hexadecimal digits")
    if tag and _TAG.fullmatch(tag) is None:
        raise TransferError(f"{text!r}: a tag has letters, digits, '.', '_' and '-'")
    return Address("oci", registry, name, version)
