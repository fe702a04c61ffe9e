"""What is kept of an accepted root, so that it can be verified again when no server can be asked.

Encodes and decodes; opens no files and verifies no signatures: `TrustedState.reaccept` does, every time. The checksum
finds accidents; who changes the documents on purpose fails at their signatures. Pure; safe from any thread.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

from cvmfs_py.errors import Refusal, TrustError
from cvmfs_py.trust.refusal import LIMIT_BYTES

_MAGIC = b"cvmfs-py trust 1\n"
_CHECKSUM_BYTES = 32
_HEADER = struct.Struct(">QIII")  # time of acceptance, then the sizes of the three documents
_LAST_SECOND = 253402300799  # of the year 9999: what a date can show


@dataclass(frozen=True, slots=True)
class StoredTrust:
    """The documents exactly as they were accepted, and when that was."""

    manifest: bytes
    certificate_pem: bytes
    whitelist: bytes
    accepted_at_s: int

    def encode(self) -> bytes:
        documents = (self.manifest, self.certificate_pem, self.whitelist)
        payload = _HEADER.pack(self.accepted_at_s, *map(len, documents)) + b"".join(documents)
        return _MAGIC + hashlib.sha256(payload).digest() + payload

    @staticmethod
    def decode(data: bytes) -> StoredTrust:
        """Raises TrustError(MALFORMED) for everything that `encode` did not write."""
        start = len(_MAGIC) + _CHECKSUM_BYTES
        payload = data[start:]
        if not data.startswith(_MAGIC) or len(payload) < _HEADER.size:
            raise _malformed("it is not in the form that this version writes")
        if hashlib.sha256(payload).digest() != data[len(_MAGIC) : start]:
            raise _malformed("its checksum is wrong")
        accepted_at_s, *sizes_bytes = _HEADER.unpack_from(payload)
        if sum(sizes_bytes) != len(payload) - _HEADER.size:
            raise _malformed("its sizes do not add up")
        if max(sizes_bytes) > LIMIT_BYTES or accepted_at_s > _LAST_SECOND:
            raise _malformed("its sizes or its date cannot be")
        manifest_end = _HEADER.size + sizes_bytes[0]
        certificate_end = manifest_end + sizes_bytes[1]
        return StoredTrust(
            manifest=payload[_HEADER.size : manifest_end],
            certificate_pem=payload[manifest_end:certificate_end],
            whitelist=payload[certificate_end:],
            accepted_at_s=accepted_at_s,
        )


def _malformed(detail: str) -> TrustError:
    return TrustError(
        Refusal.MALFORMED,
        f"what was stored to start offline {Refusal.MALFORMED.value}: {detail}; it is written anew with the next"
        " successful start",
    )
