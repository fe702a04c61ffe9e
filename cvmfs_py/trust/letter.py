"""The signed form that manifests and whitelists share: body, hash text, signature.

Cuts the letter and checks that the body has the hash that is written below it. Does not check the signature (that takes
a certificate or a master key) and does not read the body. Pure; safe from any thread.
"""

from __future__ import annotations

from dataclasses import dataclass

from cache.address import Algorithm, ContentHash, hash_bytes, parse_hash
from cvmfs_py.errors import Refusal
from cvmfs_py.trust.refusal import LIMIT_BYTES, check_size, refused

_SEPARATOR = b"\n--\n"
_LONGEST_HASH_TEXT_BYTES = 49


@dataclass(frozen=True, slots=True)
class Letter:
    """A cut letter. What is signed is `hash_text`, not the body; the signature is every byte that follows it."""

    body: bytes
    hash_text: bytes
    content_hash: ContentHash
    signature: bytes

    def check_body(self, what: str) -> None:
        """Refuse the letter when its body is not the one that was hashed."""
        found = hash_bytes(self.content_hash.algorithm, self.body)
        if found != self.content_hash:
            raise refused(
                what,
                Refusal.BODY_HASH,
                f"it says {self.content_hash} and hashes to {found}; it was damaged or changed on its way",
            )


def parse_letter(data: bytes, what: str, limit_bytes: int = LIMIT_BYTES) -> Letter:
    """Cut a letter at its first separator. `what` names the document in errors."""
    check_size(what, data, limit_bytes)
    body_end = data.find(_SEPARATOR)
    if body_end < 0:
        raise refused(what, Refusal.MALFORMED, "it has no signature (no line with two dashes)")
    hash_start = body_end + len(_SEPARATOR)
    hash_end = data.find(b"\n", hash_start, hash_start + _LONGEST_HASH_TEXT_BYTES + 1)
    hash_text = data[hash_start : max(hash_start, hash_end)]
    content_hash = parse_hash(hash_text)
    # MD5 has the form of a hash, but the format never signs one, and its collisions can be made
    if content_hash is None or content_hash.algorithm is Algorithm.MD5:
        raise refused(what, Refusal.MALFORMED, "no usable hash follows its separator")
    return Letter(
        body=data[: body_end + 1],
        hash_text=hash_text,
        content_hash=content_hash,
        signature=data[hash_end + 1 :],
    )
