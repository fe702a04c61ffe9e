"""PEM armour: the first block of a wanted kind, as DER. Reads bytes only; knows nothing of keys. Pure, thread-safe.

Works line by line in linear time, because a certificate is read before anything about it is trusted.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

_BEGIN = b"-----BEGIN "
_DASHES = b"-----"


def parse_pem(data: bytes, labels: Collection[bytes]) -> bytes | None:
    """The content of the first block with one of the labels; None if there is none or if that block is broken.

    An end that does not match the beginning is no base64, so it breaks the block.
    """
    end_line = b""
    collected: list[bytes] = []
    for raw_line in data.split(b"\n"):
        line = raw_line.rstrip()
        if end_line:
            if line == end_line:
                return decode_base64(b"".join(collected))
            collected.append(line)
        elif line.startswith(_BEGIN) and line.endswith(_DASHES) and line[len(_BEGIN) : -len(_DASHES)] in labels:
            end_line = b"-----END " + line[len(_BEGIN) :]
    return None


def decode_base64(text: bytes) -> bytes | None:
    """Base64 with blanks and line ends anywhere; None if it is anything else."""
    try:
        return base64.b64decode(b"".join(text.split()), validate=True)
    except binascii.Error:
        return None


def cut_der_element(der: bytes) -> bytes | None:
    """The first DER element of the bytes, without what follows it; None if it is not whole.

    A TRUSTED CERTIFICATE block carries more after the certificate, which is not part of the fingerprint.
    """
    if len(der) < 2:
        return None
    length, header_bytes = der[1], 2
    if length >= 0x80:
        count = length & 0x7F
        if not 1 <= count <= 4 or len(der) < 2 + count:
            return None
        header_bytes += count
        length = int.from_bytes(der[2:header_bytes], "big")
    end = header_bytes + length
    return der[:end] if end <= len(der) else None
