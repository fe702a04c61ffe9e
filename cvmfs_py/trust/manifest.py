"""The manifest: which root catalog a repository has now, and which certificate its signer uses.

Reads the fields. Nothing here is trusted: `trusted_state` alone hands out a Manifest, after its signature and the
whitelist were checked. Before that, only `unverified_certificate_ref` may be asked. Pure; safe from any thread.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cache.address import Algorithm, ContentHash, Kind, parse_hash
from cache.ref import ObjectRef
from catalog.transitions import catalog_ref
from cvmfs_py.errors import Refusal
from cvmfs_py.trust.letter import parse_letter
from cvmfs_py.trust.number import parse_number
from cvmfs_py.trust.refusal import LIMIT_BYTES, manifest_of, quote, refused

if TYPE_CHECKING:
    from cvmfs_py.errors import TrustError
    from cvmfs_py.trust.letter import Letter

_ROOT_PATH_HASH = "d41d8cd98f00b204e9800998ecf8427e"  # MD5 of the empty path; nested catalogs once had manifests too
_HISTORY_LIMIT_BYTES = 256 << 20  # of an unknown size; 250 bytes a tag
_REQUIRED = {
    "C": "root catalog",
    "R": "root path",
    "D": "time to live",
    "S": "revision",
    "X": "certificate",
}


@dataclass(frozen=True, slots=True)
class Manifest:
    """The fields of a manifest; None or 0 where an optional one is absent."""

    fqrn: str
    root_hash: ContentHash
    root_size_bytes: int | None
    certificate_hash: ContentHash
    history_hash: ContentHash | None
    metainfo_hash: ContentHash | None
    reflog_hash: ContentHash | None  # of the raw file /.cvmfsreflog
    revision: int
    timestamp_s: int  # when it was published
    ttl_s: int  # clients use the root catalog's property instead
    is_garbage_collectable: bool
    has_alternative_paths: bool
    channel_tips: tuple[str, ...] = ()

    @property
    def root_ref(self) -> ObjectRef:
        label = f"root catalog of {self.fqrn}, revision {self.revision}"
        ref = catalog_ref(self.root_hash, self.root_size_bytes, label)
        return replace(ref, alternative_path=self.has_alternative_paths)

    @property
    def certificate_ref(self) -> ObjectRef:
        return _certificate_ref(self.certificate_hash, self.has_alternative_paths, self.fqrn)

    @property
    def history_ref(self) -> ObjectRef | None:
        """The database of tags; None if the repository has no tags."""
        if self.history_hash is None:
            return None
        return ObjectRef(
            self.history_hash, Kind.HISTORY, limit_bytes=_HISTORY_LIMIT_BYTES, label=f"tags of {self.fqrn}"
        )

    @property
    def metainfo_ref(self) -> ObjectRef | None:
        if self.metainfo_hash is None:
            return None
        return ObjectRef(
            self.metainfo_hash, Kind.METAINFO, limit_bytes=LIMIT_BYTES, label=f"description of {self.fqrn}"
        )


def unverified_certificate_ref(data: bytes, *, fqrn: str = "") -> ObjectRef:
    """Where the certificate is that is said to have signed this manifest: all that may be used of it unverified."""
    what = manifest_of(fqrn)
    letter = parse_letter(data, what)
    letter.check_body(what)
    fields = _parse_fields(letter.body)
    certificate_hash = _parse_content_hash(fields.get("X", ""))
    if certificate_hash is None:
        raise _incomplete(what, "X")
    return _certificate_ref(certificate_hash, fields.get("A") == "yes", fqrn)


def parse_manifest(letter: Letter, fqrn: str) -> Manifest:
    """The fields of a manifest that claims to be this repository's, or the reason why it cannot be.

    For `trusted_state` alone: the signature is not checked here.
    """
    what = manifest_of(fqrn)
    fields = _parse_fields(letter.body)
    name = fields.get("N", "")
    if name != fqrn:
        raise refused(
            what,
            Refusal.WRONG_NAME,
            f"it names {quote(name) if name else 'no repository'}; check the server URL (CVMFS_SERVER_URL)",
        )
    if fields.get("R", _ROOT_PATH_HASH) != _ROOT_PATH_HASH:
        raise refused(what, Refusal.WRONG_ROOT_PATH, f"its root path hash is {quote(fields['R'])}")
    for key in _REQUIRED:
        if key not in fields:
            raise _incomplete(what, key)
    root_hash = _parse_content_hash(fields["C"])
    if root_hash is None:
        raise _incomplete(what, "C")
    certificate_hash = _parse_content_hash(fields["X"])
    if certificate_hash is None:
        raise _incomplete(what, "X")
    return Manifest(
        fqrn=fqrn,
        root_hash=root_hash,
        root_size_bytes=parse_number(fields.get("B", "")) or None,
        certificate_hash=certificate_hash,
        history_hash=_parse_content_hash(fields.get("H", "")),
        metainfo_hash=_parse_content_hash(fields.get("M", "")),
        reflog_hash=_parse_content_hash(fields.get("Y", "")),
        revision=parse_number(fields["S"]),
        timestamp_s=parse_number(fields.get("T", "")),
        ttl_s=parse_number(fields["D"]),
        is_garbage_collectable=fields.get("G") == "yes",
        has_alternative_paths=fields.get("A") == "yes",
        channel_tips=tuple(fields["Z"].split("|")) if "Z" in fields else (),
    )


def _parse_fields(body: bytes) -> dict[str, str]:
    """Key to value: the last one wins, but the values of Z are joined with a bar."""
    fields: dict[str, str] = {}
    tips: list[str] = []
    lines = body.decode("latin-1").split("\n")
    for line in lines[:-1]:  # what follows the last newline is no line
        if line.startswith("Z"):
            tips.append(line[1:])
        elif line:
            fields[line[0]] = line[1:]
    if tips:
        fields["Z"] = "|".join(tips)
    return fields


def _parse_content_hash(text: str) -> ContentHash | None:
    content_hash = parse_hash(text)
    if content_hash is None or content_hash.algorithm is Algorithm.MD5:
        return None
    return content_hash


def _certificate_ref(certificate_hash: ContentHash, has_alternative_paths: bool, fqrn: str) -> ObjectRef:
    return ObjectRef(
        certificate_hash,
        Kind.CERTIFICATE,
        limit_bytes=LIMIT_BYTES,
        alternative_path=has_alternative_paths,
        label=f"certificate of {fqrn}" if fqrn else "certificate",
    )


def _incomplete(what: str, key: str) -> TrustError:
    return refused(what, Refusal.INCOMPLETE, f"field {key} ({_REQUIRED[key]}) is missing or names nothing")
