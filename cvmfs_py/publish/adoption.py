"""Takes over a repository that was made elsewhere: checks that its keys fit what it serves, and writes what we need.

That is its settings, as far as it tells them, and the record of what was published last. Both go beside the keys, which
stay where they are, below links in `DIR.keys`. The web root is read, never changed. Concurrency: one at a time.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from catalog.errors import CatalogError
from catalog.reader import Catalog
from cvmfs_py.errors import ConfigError, PublishError
from cvmfs_py.publish.current import load_current, read_record, refuse_older, whitelist_warning, write_record
from cvmfs_py.publish.keys import PublisherKeys, key_names, sync_directory
from cvmfs_py.publish.lock import PublisherLock
from cvmfs_py.publish.place import (
    LAST_SNAPSHOT,
    REFLOG,
    Place,
    check_keys_directory,
    default_keys_directory,
    find_keys_directory,
    find_name,
)
from cvmfs_py.publish.settings import RepositorySettings, store_settings
from cvmfs_py.publish.storage import DATA, Storage
from cvmfs_py.publish.stored_objects import StoredObjects
from cvmfs_py.trust.whitelist import format_time

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cvmfs_py.publish.current import Current
    from cvmfs_py.trust.manifest import Manifest

_WRITABLE_SCHEMA = (2.5, 7)


@dataclass(frozen=True, slots=True)
class Adopted:
    """What is, or would be, taken over."""

    place: Place
    keys_source: Path  # where the key files are
    settings: RepositorySettings
    revision: int
    has_master_key: bool
    remarks: tuple[str, ...]  # for people: what does not work yet, and what to do about it


def adopt(
    directory: str | os.PathLike[str],
    keys: str | os.PathLike[str] | None,
    choices: Mapping[str, object],
    now_s: float,
    *,
    dry_run: bool = False,
) -> Adopted:
    """Takes over a web root. `keys`: where they are (None: in `DIR.keys`); `choices`: settings that nothing tells."""
    storage_path = Path(os.path.abspath(directory))
    fqrn = find_name(directory)
    place, source = _place(fqrn, storage_path, keys)
    if place.settings_file.exists():
        raise ConfigError(
            f"{fqrn} needs no adoption: its settings are in {place.settings_file}; move that file away to make it anew"
        )
    storage = Storage(storage_path)
    if not (storage_path / DATA).is_dir():
        raise PublishError(f"{storage_path} has no directory {DATA}: the objects of {fqrn} are stored elsewhere")
    _, *needed = key_names(fqrn)
    missing = [name for name in needed if not (source / name).exists()]
    if missing:
        raise ConfigError(
            f"{source} lacks {', '.join(missing)}: nobody can publish to {fqrn} without; its owner has them, or the "
            "server that made it, in /etc/cvmfs/keys"
        )
    loaded = PublisherKeys.load(source, fqrn)
    current = load_current(place, storage, loaded.master_public)
    record = read_record(place)
    refuse_older(current.manifest, record)
    with StoredObjects(storage) as stored, _open_root(stored, current.manifest) as catalog:
        settings = _settings(catalog, current.manifest, choices)
        remarks = tuple(_remarks(place, storage, catalog, loaded, current, now_s))
    adopted = Adopted(place, source, settings, current.manifest.revision, loaded.has_master, remarks)
    if not dry_run:
        _write(adopted, current.manifest)
    return adopted


def _place(fqrn: str, storage: Path, keys: str | os.PathLike[str] | None) -> tuple[Place, Path]:
    """Where everything is to be, and where the keys are now."""
    beside = find_keys_directory(storage)
    if keys is None:
        if beside is None:
            raise ConfigError(
                f"the keys of {fqrn} are not here: there is no {default_keys_directory(storage)}; say where they are "
                "with --keys DIR"
            )
        source = beside
    else:
        source = Path(os.path.abspath(keys))
        if not source.is_dir():
            raise ConfigError(f"{source} is no directory: --keys names the one that has {fqrn}.pub, .crt and .key")
    check_keys_directory(source, storage)
    if beside is not None and not _same_keys(fqrn, beside, source):
        raise ConfigError(f"{beside} is there already, and the keys are in {source}: move it away first")
    own = beside.resolve() if beside is not None else default_keys_directory(storage.resolve())
    return Place(fqrn, storage, own), source


def _same_keys(fqrn: str, beside: Path, source: Path) -> bool:
    """Whether one directory holds the other's keys, as links: somebody began to adopt, and was interrupted."""
    names = [name for name in key_names(fqrn) if (source / name).exists()]
    return all((beside / name).resolve() == (source / name).resolve() for name in names)


def _settings(catalog: Catalog, manifest: Manifest, choices: Mapping[str, object]) -> RepositorySettings:
    properties = catalog.properties
    return RepositorySettings(
        fqrn=manifest.fqrn,
        algorithm=manifest.root_hash.algorithm,
        ttl_s=max(1, properties.ttl_s),
        is_volatile=properties.is_volatile,
        is_garbage_collectable=manifest.is_garbage_collectable,
        has_alternative_paths=manifest.has_alternative_paths,
        **choices,  # type: ignore[arg-type]  # checked there
    )


@contextmanager
def _open_root(stored: StoredObjects, manifest: Manifest) -> Iterator[Catalog]:
    try:
        catalog = Catalog.open(stored.open(manifest.root_ref), b"", manifest.root_hash)
    except CatalogError as error:
        raise PublishError(f"the newest revision of {manifest.fqrn} cannot be read: {error}") from error
    try:
        yield catalog
    finally:
        catalog.close()


def _remarks(
    place: Place, storage: Storage, catalog: Catalog, keys: PublisherKeys, current: Current, now_s: float
) -> Iterator[str]:
    fqrn = place.fqrn
    listed = current.whitelist.fingerprints
    if keys.certificate.find_among(listed) is None:
        if not keys.has_master:
            raise ConfigError(
                f"{fqrn}.crt in {keys.directory} is not on the whitelist of {fqrn}: nothing could be published with "
                f"it; bring {fqrn}.masterkey there as well, or the certificate and key that it was published with"
            )
        yield f"{fqrn}.crt is not on the whitelist: put it there with `cvmfs-py repo resign DIR` before you publish"
    if not keys.has_master:
        yield (
            f"there is no {fqrn}.masterkey in {keys.directory}: `cvmfs-py repo resign` needs it before "
            f"{format_time(current.whitelist.expires_s)}, the rest does not"
        )
    warning = whitelist_warning(current.whitelist, now_s)
    if warning is not None:
        yield warning
    if storage.read_file(LAST_SNAPSHOT) is not None:
        yield f"this is a replica ({LAST_SNAPSHOT}): publish where it comes from, or clients see two histories"
    if storage.read_file(REFLOG) is None:
        yield f"there is no {REFLOG}: the next publication makes one, which knows the tagged revisions only"
    version = catalog.schema.version, catalog.schema.revision
    if version != _WRITABLE_SCHEMA:
        yield (
            f"its root catalog has schema {version[0]:g} revision {version[1]}: only 2.5 revision 7 can be changed; "
            "migrate it with the server that made it first"
        )
    if not os.access(storage.directory / DATA, os.W_OK | os.X_OK):
        yield f"{storage.directory / DATA} may not be written by this user: publish as its owner"


def _write(adopted: Adopted, manifest: Manifest) -> None:
    place = adopted.place
    try:
        place.keys_directory.mkdir(mode=0o700, exist_ok=True)
        with PublisherLock(place.lock_file, place.fqrn):
            if place.keys_directory != adopted.keys_source.resolve():
                _link_keys(adopted)
            write_record(place, manifest)
            # The last one: with settings it is adopted.
            store_settings(adopted.settings, place.settings_file)
            sync_directory(place.keys_directory)
    except OSError as error:
        raise PublishError(f"{place.keys_directory} cannot be written: {error.strerror}") from error


def _link_keys(adopted: Adopted) -> None:
    """Links instead of copies: private keys stay in one place, and a key that is replaced there is replaced here."""
    for name in key_names(adopted.place.fqrn):
        link = adopted.place.keys_directory / name
        if not os.path.lexists(link) and (adopted.keys_source / name).exists():
            link.symlink_to(adopted.keys_source / name)
