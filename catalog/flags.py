"""The bits of `catalog.flags`. Pure constants; the type of an entry comes from its mode, never from here."""

from __future__ import annotations

from cache.address import Algorithm

DIRECTORY = 1
NESTED_MOUNTPOINT = 2  # the row in the parent catalog
FILE = 4  # regular files, symlinks and special files
SYMLINK = 8
SPECIAL = 16
NESTED_ROOT = 32  # the top row of the child catalog
CHUNKED = 64
EXTERNAL = 128
ALGORITHM_SHIFT = 8
COMPRESSION_SHIFT = 11
BIND_MOUNTPOINT = 0x4000
HIDDEN = 0x8000
DIRECT_IO = 0x10000

TRANSITIONS = NESTED_MOUNTPOINT | NESTED_ROOT | BIND_MOUNTPOINT
KNOWN_BEFORE_2_1 = NESTED_MOUNTPOINT | NESTED_ROOT

COMPRESSION_NONE = 1  # every other value: the first bytes of the object decide

# Bits 8-10 count from SHA-1, because content is never addressed by MD5.
ALGORITHMS = (Algorithm.SHA1, Algorithm.RMD160, Algorithm.SHAKE128)
