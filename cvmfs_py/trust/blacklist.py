"""The blacklist: certificates and revisions that this computer refuses whatever the servers say.

Reads the texts of the blacklist files, which are local and trusted; every line that is none of the two kinds is passed
over. Does not open files. Pure; safe from any thread.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from cvmfs_py.errors import Refusal
from cvmfs_py.trust.number import parse_number
from cvmfs_py.trust.refusal import refused
from cvmfs_py.trust.whitelist import parse_fingerprints

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cache.address import ContentHash
    from cvmfs_py.errors import TrustError

# nothing may follow the number: a trailing blank disables the line
_REVISION_LINE = re.compile(rb"<([^ \t]+)[ \t]+([0-9]+)")


@dataclass(frozen=True, slots=True)
class Blacklist:
    """Fingerprints of refused certificates, and for each repository the first revision that is not refused."""

    fingerprints: tuple[ContentHash, ...] = ()
    first_good_revisions: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))

    @staticmethod
    def parse(texts: Iterable[bytes]) -> Blacklist:
        """All files together. A file that does not end with a newline does not run into the next one."""
        fingerprint_lines: list[bytes] = []
        first_good_revisions: dict[str, int] = {}
        for text in texts:
            for line in text.split(b"\n"):
                match = _REVISION_LINE.fullmatch(line)
                if match is None:
                    fingerprint_lines.append(line)
                    continue
                fqrn = match.group(1).decode("latin-1")
                revision = parse_number(match.group(2).decode())
                first_good_revisions[fqrn] = max(revision, first_good_revisions.get(fqrn, 0))
        return Blacklist(parse_fingerprints(fingerprint_lines), MappingProxyType(first_good_revisions))

    def refuses_revision(self, fqrn: str, revision: int) -> TrustError | None:
        """Why a revision may not be used, if so. To be asked with the root catalog's own `revision` property."""
        first_good = self.first_good_revisions.get(fqrn, 0)
        if revision >= first_good:
            return None
        return refused(
            f"revision {revision} of {fqrn}",
            Refusal.REVISION_BLACKLISTED,
            f"the blacklist (CVMFS_BLACKLIST) refuses every revision before {first_good}",
        )
