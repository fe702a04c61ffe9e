"""Makes a repository: directories, keys, whitelist and the first, empty revision.

Concurrency: one at a time for one directory, which must be empty.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from cache.address import Kind
from cvmfs_py.errors import ConfigError, PublishError
from cvmfs_py.publish.databases import change_history
from cvmfs_py.publish.keys import PublisherKeys
from cvmfs_py.publish.lock import PublisherLock
from cvmfs_py.publish.place import MASTER_REPLICA, Place, check_keys_directory, default_keys_directory
from cvmfs_py.publish.recovery import begin_writing
from cvmfs_py.publish.sealing import seal
from cvmfs_py.publish.settings import store_settings
from cvmfs_py.publish.signing import Manifest
from cvmfs_py.publish.storage import Storage
from cvmfs_py.publish.tags import plan_publication
from cvmfs_py.publish.tree import WritableTree
from cvmfs_py.publish.whitelisting import DEFAULT_DAYS, check_days, write_whitelist

if TYPE_CHECKING:
    from cvmfs_py.publish.settings import RepositorySettings

_log = logging.getLogger(__name__)


def create_repository(
    settings: RepositorySettings,
    storage_directory: str | os.PathLike[str],
    *,
    keys_directory: str | os.PathLike[str] | None = None,
    whitelist_days: int = DEFAULT_DAYS,
) -> Place:
    """Makes a repository in a directory that is empty or not there. Revision 1 is an empty root directory."""
    check_days(whitelist_days)
    storage_path = Path(os.path.abspath(storage_directory))
    beside = default_keys_directory(storage_path)
    keys_path = beside if keys_directory is None else Path(os.path.abspath(keys_directory))
    _refuse_used(storage_path, beside, keys_path)
    check_keys_directory(keys_path, storage_path)
    keys = PublisherKeys.create(keys_path, settings.fqrn)
    place = Place(settings.fqrn, storage_path, keys_path.resolve())
    storage = Storage(storage_path)
    with PublisherLock(place.lock_file, place.fqrn):
        storage.create()
        store_settings(settings, place.settings_file)
        if not beside.exists():
            _link(beside, place.keys_directory)
        begin_writing(storage, place.mark_file)
        workdir = tempfile.mkdtemp(prefix="cvmfs-py-init-")
        try:
            _publish_empty(place, storage, settings, keys, workdir, whitelist_days)
        finally:
            shutil.rmtree(workdir)
    return place


def _publish_empty(
    place: Place, storage: Storage, settings: RepositorySettings, keys: PublisherKeys, workdir: str, days: int
) -> None:
    now_s = int(time.time())
    with WritableTree(storage, settings, None, workdir) as tree:
        committed = tree.commit(1, now_s)
    manifest = Manifest(
        fqrn=settings.fqrn,
        root_hash=committed.root_hash,
        root_size_bytes=committed.root_size_bytes,
        certificate_hash=storage.put_content(keys.certificate_pem, Kind.CERTIFICATE, settings),
        history_hash=None,
        metainfo_hash=None,
        reflog_hash=None,
        revision=1,
        timestamp_s=now_s,
        ttl_s=settings.ttl_s,
        is_garbage_collectable=settings.is_garbage_collectable,
        has_alternative_paths=settings.has_alternative_paths,
    )
    tags = plan_publication({}, None, manifest, name=None, description="", automatic=True)
    history = change_history(storage, None, settings, workdir, put=tags)
    write_whitelist(storage, keys, settings, days, now_s)
    storage.replace_file(MASTER_REPLICA, b"")
    manifest = dataclasses.replace(manifest, history_hash=history)
    seal(place, storage, keys, workdir, None, manifest, warn=_log.warning)


def _refuse_used(storage: Path, beside: Path, keys: Path) -> None:
    try:
        is_used = bool(os.listdir(storage))
    except FileNotFoundError:
        is_used = False
    except OSError as error:
        raise PublishError(f"{storage} cannot be used: {error.strerror}") from error
    if is_used:
        raise PublishError(f"{storage} is not empty: a new repository needs a directory of its own")
    if os.path.lexists(beside) and beside.resolve() != keys.resolve():
        raise ConfigError(f"{beside} is there already, and the keys are to be in {keys}: move it away first")


def _link(beside: Path, keys: Path) -> None:
    """So that the other commands need no option to find the keys."""
    try:
        beside.symlink_to(keys)
    except OSError as error:
        raise PublishError(f"{beside} cannot be made a link to {keys}: {error.strerror}") from error
