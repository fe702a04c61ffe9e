"""The whitelist: which certificates a repository's owner lets sign manifests, and until when.

Reads and verifies it with the master keys. Does not know which certificate is asked for. Pure: the time is a parameter;
safe from any thread.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cache.address import ContentHash, parse_hash
from cvmfs_py.errors import Refusal
from cvmfs_py.trust.letter import parse_letter
from cvmfs_py.trust.refusal import quote, refused, whitelist_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cvmfs_py.errors import TrustError
    from cvmfs_py.trust.keys import MasterKey
    from cvmfs_py.trust.letter import Letter

_CREATED_BYTES = 14  # YYYYMMDDhhmmss
_FLAGS = (b"Vpkcs7", b"Wcachain")


@dataclass(frozen=True, slots=True)
class Whitelist:
    """A verified whitelist and the master key that signed it."""

    fqrn: str
    expires_s: int  # the beginning of the hour in which it expires; from then on it is invalid
    fingerprints: tuple[ContentHash, ...]
    master_key: MasterKey


def accept_whitelist(data: bytes, fqrn: str, master_keys: tuple[MasterKey, ...], now_s: float) -> Whitelist:
    """The whitelist, if it is this repository's, not expired and signed by one of the keys."""
    what = whitelist_of(fqrn)
    letter = parse_letter(data, what)
    lines = letter.body.split(b"\n")[:-1]
    if len(lines) < 3 or len(lines[0]) != _CREATED_BYTES:
        raise refused(what, Refusal.MALFORMED, "it does not begin with a date, an expiry date and a name")
    expires_s = _parse_expiry(lines[1], what)
    if now_s >= expires_s:
        raise _expired(what, expires_s, now_s)
    if not lines[2].startswith(b"N"):
        raise refused(what, Refusal.MALFORMED, "its third line is not a name")
    name = lines[2][1:].decode("latin-1")
    if name != fqrn:
        raise refused(what, Refusal.WRONG_NAME, f"it names {quote(name)}; check the server URL (CVMFS_SERVER_URL)")
    flags = [flag for flag in _FLAGS if flag in lines[3:5]]
    if flags:
        raise refused(
            what,
            Refusal.UNSUPPORTED,
            f"it asks for {' and '.join(flag.decode() for flag in flags)}; only whitelists signed with an RSA master"
            " key can be verified, ask the repository's owner for one",
        )
    letter.check_body(what)
    master_key = _find_signer(letter, master_keys, what)
    return Whitelist(fqrn, expires_s, parse_fingerprints(lines[3:]), master_key)


def parse_fingerprints(lines: Iterable[bytes]) -> tuple[ContentHash, ...]:
    """The fingerprints on lines; every line that is none (a comment, say) is passed over. Order kept, no repetition."""
    found: dict[ContentHash, None] = {}
    for line in lines:
        text = line.replace(b":", b"")
        for end in b" ", b"\t", b"#":
            text = text.partition(end)[0]
        fingerprint = parse_hash(text.lower())
        if fingerprint is not None:
            found[fingerprint] = None
    return tuple(found)


def format_fingerprint(fingerprint: ContentHash) -> str:
    """As whitelists write it: upper-case pairs with colons, and the algorithm's suffix."""
    return fingerprint.digest.hex(":").upper() + fingerprint.algorithm.suffix.upper()


def format_time(time_s: float) -> str:
    """A time for people; the bare number of seconds where no calendar has it."""
    try:
        return f"{datetime.fromtimestamp(time_s, UTC):%Y-%m-%d %H:%M} UTC"
    except (ValueError, OverflowError, OSError):
        return f"second {time_s:.0f}"


def _parse_expiry(line: bytes, what: str) -> int:
    """`EYYYYMMDDhhmmss`: only whole hours count, minutes and seconds are not looked at."""
    digits = line[1:]
    if len(line) != _CREATED_BYTES + 1 or line[:1] != b"E" or not digits.isdigit():
        raise refused(what, Refusal.MALFORMED, "its second line is not an expiry date")
    try:
        hour = datetime(int(digits[:4]), int(digits[4:6]), int(digits[6:8]), int(digits[8:10]), tzinfo=UTC)
    except ValueError as error:
        raise refused(what, Refusal.MALFORMED, f"no such expiry date: {quote(digits.decode())}") from error
    return int(hour.timestamp())


def _expired(what: str, expires_s: int, now_s: float) -> TrustError:
    return refused(
        what,
        Refusal.WHITELIST_EXPIRED,
        f"it was valid until {format_time(expires_s)} and the clock says {format_time(now_s)}; if the clock is right,"
        " tell the repository's owner to sign a new one",
    )


def _find_signer(letter: Letter, master_keys: tuple[MasterKey, ...], what: str) -> MasterKey:
    for master_key in master_keys:
        if master_key.vouches_for(letter.hash_text, letter.signature):
            return master_key
    if not master_keys:
        detail = "no master key is configured; set CVMFS_PUBLIC_KEY or CVMFS_KEYS_DIR"
    else:
        sources = ", ".join(master_key.source for master_key in master_keys[:5])
        more = f" and {len(master_keys) - 5} more" if len(master_keys) > 5 else ""
        detail = f"tried {sources}{more}; get the right key from the repository's owner (CVMFS_PUBLIC_KEY)"
    raise refused(what, Refusal.FOREIGN_KEY, detail)
