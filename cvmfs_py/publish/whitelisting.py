"""Signs the whitelist of a repository, when it is made and before the old one expires.

Concurrency: only under the repository's lock, which `resign` takes.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cvmfs_py.errors import CvmfsError, UsageError
from cvmfs_py.publish.current import load_current
from cvmfs_py.publish.keys import PublisherKeys
from cvmfs_py.publish.lock import PublisherLock
from cvmfs_py.publish.place import WHITELIST, find_place
from cvmfs_py.publish.settings import load_settings
from cvmfs_py.publish.signing import format_whitelist
from cvmfs_py.publish.storage import Storage
from cvmfs_py.trust.whitelist import Whitelist, accept_whitelist

if TYPE_CHECKING:
    import os

    from cvmfs_py.publish.place import Place
    from cvmfs_py.publish.settings import RepositorySettings
    from cvmfs_py.trust.certificate import Certificate

DEFAULT_DAYS = 30
_LONGEST_DAYS = 36500
_DAY_S = 86400


def check_days(days: int) -> None:
    if not 1 <= days <= _LONGEST_DAYS:
        raise UsageError(f"a whitelist cannot be valid for {days} days: give 1 to {_LONGEST_DAYS}")


def write_whitelist(
    storage: Storage,
    keys: PublisherKeys,
    settings: RepositorySettings,
    days: int,
    now_s: float,
    others: tuple[Certificate, ...] = (),
) -> Whitelist:
    """Puts a new whitelist with the own certificate, and others, in the place of the old one."""
    check_days(days)
    fingerprints = [one.fingerprint(settings.algorithm) for one in (keys.certificate, *others)]
    signed = format_whitelist(keys.fqrn, fingerprints, int(now_s), int(now_s) + days * _DAY_S, settings.algorithm, keys)
    whitelist = accept_whitelist(signed, keys.fqrn, (keys.master_public,), now_s)
    storage.replace_file(WHITELIST, signed)
    return whitelist


def resign(directory: str | os.PathLike[str], days: int = DEFAULT_DAYS) -> Whitelist:
    """Signs the whitelist anew, whatever the old one was."""
    check_days(days)
    place = find_place(directory)
    with PublisherLock(place.lock_file, place.fqrn):
        keys = PublisherKeys.load(place.keys_directory, place.fqrn)
        storage = Storage(place.storage_directory)
        others = _still_needed(place, storage, keys)
        return write_whitelist(storage, keys, load_settings(place.settings_file), days, time.time(), others)


def _still_needed(place: Place, storage: Storage, keys: PublisherKeys) -> tuple[Certificate, ...]:
    """The certificate of the manifest, when the key was replaced since: it is needed until the next publication."""
    try:
        current = load_current(place, storage, keys.master_public)
    except CvmfsError:  # a whitelist that is damaged or of another master key: it vouches for nobody
        return ()
    return () if current.certificate == keys.certificate else (current.certificate,)
