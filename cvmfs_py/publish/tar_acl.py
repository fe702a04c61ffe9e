"""Access control lists as archives have them, in words, and as file systems have them, in an extended attribute.

Names of users and groups are looked up on this machine, as by every program that unpacks archives, unless the archive
says numbers too. Stateless.
"""

from __future__ import annotations

import grp
import pwd
import struct

ATTRIBUTES = {
    b"SCHILY.acl.access": b"system.posix_acl_access",
    b"SCHILY.acl.default": b"system.posix_acl_default",
}
_VERSION = 2
_NOBODY = 0xFFFFFFFF
_TAGS = {b"user": (0x01, 0x02), b"group": (0x04, 0x08), b"mask": (0x10, None), b"other": (0x20, None)}
_SHORT = {b"u": b"user", b"g": b"group", b"m": b"mask", b"o": b"other"}
_BITS = {ord("r"): 4, ord("w"): 2, ord("x"): 1, ord("-"): 0}


class AclError(ValueError):
    """The list cannot be understood. The message goes on: "the access control list is left out: "."""


def parse_acl(text: bytes) -> bytes | None:
    """The attribute's value for a list in words; None when it says no more than the mode of the file does."""
    entries = []
    for item in text.replace(b"\n", b",").split(b","):
        item = item.partition(b"#")[0].strip()
        if item:
            entries.append(_entry(item))
    if len(entries) <= 3:  # user, group, other: no named ones, and so no mask
        return None
    entries.sort(key=lambda entry: (entry[0], entry[2]))
    return struct.pack("<I", _VERSION) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def _entry(item: bytes) -> tuple[int, int, int]:
    kind, *fields = item.split(b":")
    tags = _TAGS.get(_SHORT.get(kind, kind))
    if tags is None or not fields:
        raise AclError(f"{item!r} is no entry of one")
    if len(fields) == 1:  # `mask:rwx`, as some write it
        fields.insert(0, b"")
    name, permissions, *number = fields
    if not name:
        return tags[0], _permissions(permissions, item), _NOBODY
    if tags[1] is None:
        raise AclError(f"{item!r} is no entry of one")
    return tags[1], _permissions(permissions, item), _identifier(tags[1], name, number)


def _permissions(text: bytes, item: bytes) -> int:
    if not text or len(text) > 3 or any(letter not in _BITS for letter in text):
        raise AclError(f"{item!r} is no entry of one")
    return sum(_BITS[letter] for letter in set(text))


def _identifier(tag: int, name: bytes, number: list[bytes]) -> int:
    digits = number[0] if number and number[0].isdigit() else name
    if digits.isdigit() and len(digits) <= 10:
        return int(digits) & _NOBODY
    text = name.decode("utf-8", "surrogateescape")
    try:
        return pwd.getpwnam(text).pw_uid if tag == 0x02 else grp.getgrnam(text).gr_gid
    except KeyError:
        raise AclError(f"nobody is called {text!a} here") from None
