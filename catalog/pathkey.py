"""Path keys: how a catalog calls a path. Pure.

The key of a path is its MD5, read as two signed little-endian integers. The root is the empty string.
"""

from __future__ import annotations

import hashlib
import struct
from typing import TypeAlias

PathKey: TypeAlias = "tuple[int, int]"

_as_key = struct.Struct("<qq").unpack
_md5 = hashlib.md5


def path_key(path: bytes) -> PathKey:
    return _as_key(_md5(path, usedforsecurity=False).digest())
