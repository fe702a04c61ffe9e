"""The words of a refusal: what was refused, for which repository, why and what to do. Pure; safe from any thread."""

from __future__ import annotations

from cvmfs_py.errors import Refusal, TrustError

LIMIT_BYTES = 1 << 20  # of everything that is fetched before it is trusted


def manifest_of(fqrn: str) -> str:
    return f"the manifest (.cvmfspublished) of {fqrn}" if fqrn else "the manifest (.cvmfspublished)"


def whitelist_of(fqrn: str) -> str:
    return f"the whitelist (.cvmfswhitelist) of {fqrn}"


def certificate_of(fqrn: str) -> str:
    return f"the certificate of {fqrn}"


def refused(what: str, reason: Refusal, detail: str) -> TrustError:
    """The error to raise. `detail` must show what came from outside only through `quote`."""
    return TrustError(reason, f"{what} {reason.value}: {detail}")


def check_size(what: str, data: bytes, limit_bytes: int = LIMIT_BYTES) -> None:
    if len(data) > limit_bytes:
        raise refused(what, Refusal.TOO_LARGE, f"{len(data)} bytes, at most {limit_bytes} are allowed")


def quote(text: str) -> str:
    """Untrusted text, short and printable."""
    return ascii(text if len(text) <= 64 else text[:61] + "...")
