"""What is known and trusted of one repository, and the way for a server's documents to become trusted.

`accept` verifies the manifest, its certificate and the whitelist, in the order of the format, every time and whole. It
changes nothing: only `adopt`, called when the root catalog has been loaded, moves the state on, and never back. So a
root that cannot be loaded is offered again. Does not fetch, store or look at the clock. One repository, one owner: not
safe to be changed from two threads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cvmfs_py.errors import Refusal
from cvmfs_py.trust.blacklist import Blacklist
from cvmfs_py.trust.breadcrumb import Breadcrumb
from cvmfs_py.trust.certificate import Certificate, parse_certificate
from cvmfs_py.trust.letter import parse_letter
from cvmfs_py.trust.manifest import Manifest, parse_manifest
from cvmfs_py.trust.refusal import certificate_of, manifest_of, refused
from cvmfs_py.trust.root_choice import RootChoice, choose_candidate, choose_root
from cvmfs_py.trust.stored import StoredTrust
from cvmfs_py.trust.whitelist import Whitelist, accept_whitelist, format_fingerprint, format_time

if TYPE_CHECKING:
    from cache.ref import ObjectRef
    from cvmfs_py.trust.keys import MasterKey
    from cvmfs_py.trust.letter import Letter


@dataclass(frozen=True, slots=True)
class TrustedRoot:
    """A verified manifest and everything that vouches for it."""

    manifest: Manifest
    certificate: Certificate
    whitelist: Whitelist
    choice: RootChoice  # SERVER: load this root, then adopt it. LOCAL: the one that is here is up to date
    stored: StoredTrust  # to be kept beside the breadcrumb

    @property
    def breadcrumb(self) -> Breadcrumb:
        return Breadcrumb(self.manifest.root_hash, self.manifest.timestamp_s, self.manifest.revision)


class TrustedState:
    """The trusted state of one repository: master keys, blacklist and the last adopted root."""

    def __init__(
        self,
        fqrn: str,
        master_keys: tuple[MasterKey, ...],
        blacklist: Blacklist | None = None,
        breadcrumb: Breadcrumb | None = None,
    ) -> None:
        self._fqrn = fqrn
        self._master_keys = master_keys
        self._blacklist = blacklist or Blacklist()
        self._candidate = breadcrumb

    @property
    def fqrn(self) -> str:
        return self._fqrn

    @property
    def blacklist(self) -> Blacklist:
        return self._blacklist

    @property
    def candidate(self) -> Breadcrumb | None:
        """The last adopted root: what no accepted root may be older than, and the root of an offline start."""
        return self._candidate

    def replace_blacklist(self, blacklist: Blacklist) -> None:
        """The blacklist files were read again."""
        self._blacklist = blacklist

    def certificate_ref(self, manifest_bytes: bytes) -> ObjectRef:
        """Where the certificate of an unverified manifest is, unless the manifest can be refused without it."""
        return self._read_manifest(manifest_bytes)[1].certificate_ref

    def accept(
        self, manifest_bytes: bytes, certificate_pem: bytes, whitelist_bytes: bytes, now_s: float
    ) -> TrustedRoot:
        """Verify what a server sent. Raises TrustError; changes nothing either way.

        A verified manifest of a lower revision than the adopted root is refused as OUTDATED: the local root stays and
        the repository counts as offline. With an equal revision the choice is LOCAL, whatever root the server names.
        """
        return self._verify(StoredTrust(manifest_bytes, certificate_pem, whitelist_bytes, max(0, int(now_s))))

    def reaccept(self, stored: StoredTrust) -> TrustedRoot:
        """Verify again what was accepted before, when no server can be asked.

        Checks the same as `accept`, with today's master keys and blacklist; but the whitelist must have been valid at
        the time of acceptance, because a repository that was mounted may be mounted again without a network.
        """
        return self._verify(stored)

    def adopt(self, root: TrustedRoot) -> Breadcrumb:
        """This root's catalog has been loaded: from now on nothing older is accepted. Returns what to write down.

        A root that is not newer than the adopted one changes nothing.
        """
        adopted = self._candidate
        if adopted is None or choose_root(root.manifest.revision, adopted) is RootChoice.SERVER:
            adopted = choose_candidate(adopted, root.breadcrumb)
            self._candidate = adopted
        return adopted

    def _verify(self, documents: StoredTrust) -> TrustedRoot:
        letter, manifest = self._read_manifest(documents.manifest)
        certificate = parse_certificate(documents.certificate_pem, self._fqrn)
        if not certificate.signed(letter.hash_text, letter.signature):
            raise refused(
                manifest_of(self._fqrn),
                Refusal.SIGNATURE,
                "it was not signed with the certificate that it names; the server's copy may be damaged, try another",
            )
        whitelist = accept_whitelist(documents.whitelist, self._fqrn, self._master_keys, documents.accepted_at_s)
        self._check_listed(certificate, whitelist)
        choice = choose_root(manifest.revision, self._candidate)
        if choice is RootChoice.LOCAL_OFFLINE:
            known = self._candidate.revision if self._candidate else 0
            raise refused(
                manifest_of(self._fqrn),
                Refusal.OUTDATED,
                f"it is of revision {manifest.revision} and revision {known} is here; the server is behind, try"
                " another",
            )
        return TrustedRoot(manifest, certificate, whitelist, choice, documents)

    def _read_manifest(self, manifest_bytes: bytes) -> tuple[Letter, Manifest]:
        """Every check that needs no certificate. The result is not verified."""
        what = manifest_of(self._fqrn)
        letter = parse_letter(manifest_bytes, what)
        letter.check_body(what)
        manifest = parse_manifest(letter, self._fqrn)
        if self._candidate is not None and manifest.timestamp_s < self._candidate.timestamp_s:
            raise refused(
                what,
                Refusal.OUTDATED,
                f"it was published on {format_time(manifest.timestamp_s)} and a root of"
                f" {format_time(self._candidate.timestamp_s)} is here; the server is behind, try another",
            )
        return letter, manifest

    def _check_listed(self, certificate: Certificate, whitelist: Whitelist) -> None:
        what = certificate_of(self._fqrn)
        blacklisted = certificate.find_among(self._blacklist.fingerprints)
        if blacklisted is not None:
            raise refused(
                what,
                Refusal.CERTIFICATE_BLACKLISTED,
                f"fingerprint {format_fingerprint(blacklisted)} is in the blacklist (CVMFS_BLACKLIST)",
            )
        if certificate.find_among(whitelist.fingerprints) is None:
            raise refused(
                what,
                Refusal.CERTIFICATE_NOT_LISTED,
                f"its fingerprint is {format_fingerprint(certificate.fingerprint())}; tell the repository's owner",
            )
