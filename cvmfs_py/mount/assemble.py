"""Puts a repository together: settings, store, servers, keys, root. Everything is closed again at the end of the block.

Concurrency: an async context manager; what it yields is for the tasks of the same event loop.
"""

from __future__ import annotations

import logging
import os
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from cache.memory import MemoryStore
from cvmfs_py import logs
from cvmfs_py.config.load import load_settings, resolve_fqrn
from cvmfs_py.config.sources import NO_DIRECTORY
from cvmfs_py.driver import Driver
from cvmfs_py.errors import ConfigError
from cvmfs_py.mount import wiring
from cvmfs_py.mount.concurrency import first_error
from cvmfs_py.mount.config_tree import Provided, provide_config_tree
from cvmfs_py.mount.interrupts import run_aside
from cvmfs_py.mount.repository import Repository
from cvmfs_py.mount.roots import ATTACHED_CATALOGS, RootFinder
from cvmfs_py.network.fetcher import open_fetcher

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path

    from cvmfs_py.config.settings import Settings
    from cvmfs_py.trust.keys import MasterKey

_log = logging.getLogger(__name__)
FRESH_LIMIT_BYTES = 512 << 20


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which repository, and what was said about it besides the configuration."""

    name: str  # full, or to be completed with the default domain; empty: what holds for the machine
    overrides: Mapping[str, str] = field(default_factory=dict)
    config_files: Sequence[Path] | None = None
    simple_parsing: bool = False  # no shell reads the files


async def load_wanted_settings(
    wanted: Wanted, *, require_servers: bool = True, tell_all: bool = False
) -> tuple[Settings, list[str]]:
    """The settings in force, with the configuration repository where one applies, and what the user should know.

    `tell_all`: for who asks what is wrong, also what was told today.
    """
    environment = dict(os.environ)
    fqrn, provided = wanted.name, Provided()
    if fqrn:
        fqrn = await run_aside(
            resolve_fqrn, fqrn, environment=environment, config_files=wanted.config_files, overrides=wanted.overrides
        )
        provided = await provide_config_tree(fqrn, wanted.overrides, wanted.config_files, environment)
    trouble = provided.trouble
    if trouble is not None:
        _log.warning("%s", trouble.full, extra=logs.KNOWN)
    try:
        settings = await run_aside(
            load_settings,
            fqrn,
            environment=environment,
            config_files=wanted.config_files,
            overrides=wanted.overrides,
            config_tree=provided.tree,
            require_servers=require_servers,
            simple_parsing=wanted.simple_parsing,
        )
    except ConfigError as error:
        # Why nothing is known of a domain is often that the repository which knows it could not be read.
        raise type(error)("; ".join([str(error), *([trouble.full] if trouble is not None else [])])) from error
    # That it is not mounted either is no news: it was provided in another way, or it was said why not.
    warnings = [text for text in settings.warnings if not text.startswith(NO_DIRECTORY)]
    if trouble is not None and (trouble.is_news() or tell_all):
        warnings.insert(0, trouble.summary)
    return settings, warnings


@asynccontextmanager
async def open_finder(
    settings: Settings, warnings: list[str], *, fresh: bool = False, attached_limit: int = ATTACHED_CATALOGS
) -> AsyncIterator[RootFinder]:
    """Everything up to the choice of a root. `fresh`: with a store in memory instead of the cache."""
    # A root hash vouches for itself: such a pin works when the keys are long gone.
    keys: tuple[MasterKey, ...] = () if settings.root_hash else wiring.load_keys(settings)
    blacklist = wiring.load_blacklist(settings)
    with MemoryStore(FRESH_LIMIT_BYTES) if fresh else wiring.open_store(settings) as store:
        async with open_fetcher(wiring.network_config(settings, os.environ), store) as fetcher:
            driver = Driver(store, fetcher)
            yield RootFinder(settings, store, fetcher, driver, keys, blacklist, warnings, attached_limit)


@asynccontextmanager
async def open_repository(wanted: Wanted, *, fresh: bool = False) -> AsyncIterator[Repository]:
    """The repository at the root that its settings ask for."""
    settings, warnings = await load_wanted_settings(wanted)
    async with open_settled_repository(settings, warnings, fresh=fresh) as repository:
        yield repository


@asynccontextmanager
async def open_settled_repository(
    settings: Settings, warnings: list[str], *, fresh: bool = False
) -> AsyncIterator[Repository]:
    view = wiring.make_view(settings, claim_by_default=False)
    async with open_finder(settings, warnings, fresh=fresh) as finder:
        root = await finder.find()
        with ExitStack() as held, first_error():
            held.callback(root.tree.close)
            async with trio.open_nursery() as background:
                repository = Repository(
                    settings,
                    finder.store,
                    finder.fetcher,
                    finder.driver,
                    root,
                    view,
                    background,
                    tuple(warnings),
                )
                held.callback(repository.close)
                yield repository
                background.cancel_scope.cancel()
