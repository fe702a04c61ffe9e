"""The stored extended attributes of an entry: a packed blob in one column. Pure; knows no magic attributes."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

_VERSION = 1
_LIMIT = 255  # of the bytes of a name, of those of a value, and of the number of attributes


def parse_xattr_blob(blob: bytes | None) -> dict[bytes, bytes]:
    """Names and values in stored order. One malformed entry voids the whole list, as in the reference client."""
    if not blob or len(blob) < 2 or blob[0] != _VERSION:
        return {}
    found: dict[bytes, bytes] = {}
    position = 2
    for _ in range(blob[1]):
        lengths = blob[position : position + 2]
        if len(lengths) < 2:
            return {}
        value_at = position + 2 + lengths[0]
        end = value_at + lengths[1]
        name = blob[position + 2 : value_at]
        if not name or b"\0" in name or end > len(blob):
            return {}
        found[name] = blob[value_at:end]
        position = end
    return found


class PackedXattrs(NamedTuple):
    """A blob, and the names of the attributes that it has no room for, each with the reason."""

    blob: bytes | None  # None: no attributes
    left_out: tuple[tuple[bytes, str], ...]


_NOTHING = PackedXattrs(None, ())


def pack_xattr_blob(xattrs: Mapping[bytes, bytes]) -> PackedXattrs:
    """Packs attributes in the order of their names. What the format cannot hold is left out."""
    if not xattrs:
        return _NOTHING
    packed: list[bytes] = []
    left_out: list[tuple[bytes, str]] = []
    for name in sorted(xattrs):
        value = xattrs[name]
        reason = _reason_against(name, value, len(packed))
        if reason is None:
            packed.append(bytes((len(name), len(value))) + name + value)
        else:
            left_out.append((name, reason))
    blob = bytes((_VERSION, len(packed))) + b"".join(packed) if packed else None
    return PackedXattrs(blob, tuple(left_out))


def _reason_against(name: bytes, value: bytes, packed_count: int) -> str | None:
    if not name or b"\0" in name:
        return "its name is empty or contains NUL"
    if len(name) > _LIMIT:
        return f"its name has {len(name)} bytes, and {_LIMIT} is the limit"
    if len(value) > _LIMIT:
        return f"its value has {len(value)} bytes, and {_LIMIT} is the limit"
    if packed_count == _LIMIT:
        return f"an entry can have {_LIMIT} attributes"
    return None
