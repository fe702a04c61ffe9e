"""Provides the files of the configuration repository as a local tree, read through this program's own client.

Its files find each other by path, so they are copied whole, once for each revision, below the cache directory; where
the repository is mounted anyway, the mount is used. A copy is asked for news at most once in `FRESH_S`; when no server
answers, the last copy serves, and without one the built-in knowledge; the log says so each time, the user is told once
a day.

Synchronous on the local disk: it runs before anything else does.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cache.errors import CacheError
from catalog.errors import CatalogError
from cvmfs_py.config.config_repository import ConfigTree
from cvmfs_py.config.load import find_config_repository, load_settings
from cvmfs_py.errors import CvmfsError, FetchError, FsError, in_brief, in_full
from cvmfs_py.mount import wiring
from cvmfs_py.mount.interrupts import run_aside
from cvmfs_py.mount.once_a_day import is_due
from cvmfs_py.places import find_stranger

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from cvmfs_py.config.settings import Settings

_log = logging.getLogger(__name__)
FRESH_S = 3600.0
RETRY_S = 180.0  # after a failure, as for the manifests of mounted repositories
RETRY_NEEDED_S = 10.0  # the same, when nothing can be done without: somebody plugs the cable in and tries again
# The configuration must not take longer than what it is for: one short try of each server.
_TIMEOUT_S = 3.0
_MINE = ("CVMFS_SERVER_URL", "CVMFS_PUBLIC_KEY", "CVMFS_KEYS_DIR", "CVMFS_ROOT_HASH", "CVMFS_REPOSITORY_TAG")
_MINE_TOO = ("CVMFS_REPOSITORY_DATE", "CVMFS_EXTERNAL_URL")


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why there is no configuration repository, or only a copy of it."""

    summary: str  # a short line
    full: str
    memo: Path | None = None  # remembers when the user was told

    def is_news(self) -> bool:
        """Whether the user is to be told, and has not been today; counts as told from then on."""
        return self.memo is None or is_due(self.memo, time.time())


@dataclass(frozen=True, slots=True)
class Provided:
    """A tree to load settings with; None where there is no need or no way."""

    tree: ConfigTree | None = None
    trouble: Trouble | None = None


async def provide_config_tree(
    fqrn: str,
    overrides: Mapping[str, str],
    config_files: Sequence[Path] | None,
    environment: Mapping[str, str],
) -> Provided:
    """What to load the settings of `fqrn` with."""
    found = await run_aside(
        find_config_repository, fqrn, environment=environment, config_files=config_files, overrides=overrides
    )
    if found is None or found.is_mounted or found.is_spared:
        return Provided()
    if found.is_builtin and overrides.get("CVMFS_SERVER_URL"):
        return Provided()  # the user says where it is, and nobody configured anything else
    # What was said about one repository is not said about the one that configures it.
    about_it = {name: value for name, value in overrides.items() if name not in (*_MINE, *_MINE_TOO)}
    its_environment = {name: value for name, value in environment.items() if name not in (*_MINE, *_MINE_TOO)}
    settings = await run_aside(
        load_settings, found.name, environment=its_environment, overrides=about_it, require_servers=False
    )
    parent = settings.cache_dir / "config"
    its_name = f"the configuration repository {found.name}"
    if not settings.servers:
        text = f"no server is known for {its_name}; going on without it"
        return Provided(trouble=Trouble(text, text, _memo(parent, found.name)))
    # A shell runs what is in there: a cache of somebody else may be read, but not obeyed.
    stranger = find_stranger(parent, os.geteuid())
    if stranger is not None:
        text = f"no copy of {its_name} is used: {parent} {stranger}"
        return Provided(trouble=Trouble(text, text))
    tree = ConfigTree(parent / "current")
    stamp = parent / f"{found.name}.stamp"
    has_copy = tree.directory(found.name).is_dir()
    usable = tree if has_copy else None
    if _is_fresh(stamp, has_copy=has_copy, retry_s=RETRY_NEEDED_S if found.is_needed else RETRY_S):
        if has_copy:
            return Provided(tree)
        text = f"{its_name} could not be read a moment ago"
        return Provided(trouble=Trouble(text, f"{text}; try again later", _memo(parent, found.name)))
    try:
        # The directory has to be a cache before anything else is put into it, or no cache would ever be made there.
        wiring.open_store(settings).close()
    except CacheError as error:
        text = f"{its_name} cannot be read: {error}"
        return Provided(trouble=Trouble(text, text))
    instead = "its last copy serves" if has_copy else "built-in knowledge serves"
    try:
        why_offline = await _update(settings, parent, tree, found.name)
    except (CvmfsError, CacheError, CatalogError, OSError) as error:
        _touch(stamp, time.time() - FRESH_S + RETRY_S)
        summary = f"{its_name} cannot be read ({in_brief(error)}); {instead}"
        full = f"{its_name} cannot be read, {instead}: {in_full(error)}"
        return Provided(usable, Trouble(summary, full, _memo(parent, found.name)))
    if why_offline:
        _touch(stamp, time.time() - FRESH_S + RETRY_S)
        text = f"{its_name} cannot be read ({why_offline}); its last copy serves"
        return Provided(tree, Trouble(text, text, _memo(parent, found.name)))
    _touch(stamp, time.time())
    return Provided(tree)


def _memo(parent: Path, name: str) -> Path:
    return parent / f"{name}.told"


def _is_fresh(stamp: Path, *, has_copy: bool, retry_s: float) -> bool:
    """Whether nobody needs to ask: after a success, or for a short time after a failure."""
    try:
        age_s = time.time() - stamp.stat().st_mtime
    except OSError:
        return False
    if has_copy:
        return 0 <= age_s < FRESH_S
    return 0 <= age_s - (FRESH_S - RETRY_S) < retry_s


def _touch(stamp: Path, moment_s: float) -> None:
    try:
        stamp.parent.mkdir(mode=0o700, exist_ok=True)
        stamp.touch()
        os.utime(stamp, (moment_s, moment_s))
    except OSError as error:
        _log.info("cannot remember when the configuration repository was read: %s", error)


async def _update(settings: Settings, parent: Path, tree: ConfigTree, name: str) -> str:
    """Makes `parent/current` a copy of the newest revision; or of the last known one, and then says why."""
    from cvmfs_py.mount.assemble import open_settled_repository
    from cvmfs_py.mount.copying import CopyRequest, copy_out

    quick = replace(
        settings,
        timeout_s=min(settings.timeout_s, _TIMEOUT_S),
        timeout_direct_s=min(settings.timeout_direct_s, _TIMEOUT_S),
        max_retries=0,
        use_geoapi=False,
    )
    async with open_settled_repository(quick, []) as repository:
        copy = parent / str(repository.root_hash)
        target = _begin_copy(copy, name)
        if target is not None:
            try:
                report = await copy_out(repository, CopyRequest(b"/etc/cvmfs", target, recursive=True), _Nobody())
            except FsError as error:
                raise FsError(error.errno, f"it holds no configuration: {error}") from error
            if report.failures:
                raise FetchError(report.failures[0])
        why_offline = repository.root.why_offline
    _switch(parent, copy, name, tree)
    return why_offline


def _begin_copy(copy: Path, name: str) -> Path | None:
    """Where to copy to; None if this revision has been copied before."""
    if ConfigTree(copy).directory(name).is_dir():
        return None
    partial = copy.with_name(f"partial.{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    copy.parent.mkdir(mode=0o700, exist_ok=True)
    target = ConfigTree(partial).directory(name)
    target.parent.mkdir(parents=True)
    return target


def _switch(parent: Path, copy: Path, name: str, tree: ConfigTree) -> None:
    """Makes a complete copy the current one, in one step, and removes those before it."""
    partial = copy.with_name(f"partial.{os.getpid()}")
    if ConfigTree(partial).directory(name).is_dir():
        try:
            partial.rename(copy)
        except OSError:
            if not copy.is_dir():  # another process was faster
                raise
    link = parent / f"current.{os.getpid()}"
    link.unlink(missing_ok=True)
    link.symlink_to(copy.name)
    link.rename(tree.root)
    for old in parent.iterdir():
        if old.is_dir() and not old.is_symlink() and old.name != copy.name and not _is_in_work(old.name):
            shutil.rmtree(old, ignore_errors=True)


def _is_in_work(name: str) -> bool:
    """Whether another process is making this copy."""
    begin, _, pid = name.partition(".")
    return begin == "partial" and pid != str(os.getpid()) and os.path.exists(f"/proc/{pid}")


class _Nobody:
    """Watches no progress."""

    def skip(self, size_bytes: int = 0, objects: int = 1) -> None: ...

    def advance(self, size_bytes: int = 0, objects: int = 1) -> None: ...
