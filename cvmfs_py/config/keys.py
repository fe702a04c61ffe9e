"""The files that trust is built on: which master keys apply to a repository, and the texts of its blacklists.

Reads files, does not look into them: whether a key is one, `trust` says. A file that is named but cannot be read is an
error, never skipped: it might be the one that matters.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cvmfs_py.config.domains import KeyText
from cvmfs_py.config.files import read_small_file
from cvmfs_py.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from cvmfs_py.config.settings import Settings

_KEY_LIMIT_BYTES = 64 << 10
_BLACKLIST_LIMIT_BYTES = 16 << 20


def find_key_files(settings: Settings) -> tuple[Path, ...]:
    """The files of CVMFS_PUBLIC_KEY, else every *.pub directly in CVMFS_KEYS_DIR, sorted by name."""
    if settings.public_keys:
        return settings.public_keys
    directory = settings.keys_dir
    try:
        names = sorted(name for name in os.listdir(directory) if name.endswith(".pub"))
    except FileNotFoundError as error:
        if settings.is_keys_dir_configured and not settings.builtin_keys:
            raise ConfigError(f"the directory of master keys {directory} does not exist (CVMFS_KEYS_DIR)") from error
        return ()
    except OSError as error:
        raise ConfigError(f"cannot read the directory of master keys {directory}: {error.strerror}") from error
    return tuple(directory / name for name in names)


def load_master_key_texts(settings: Settings) -> tuple[KeyText, ...]:
    """The master keys, from files or, where none are configured, built in; at least one, or ConfigError."""
    files = find_key_files(settings)
    if files:
        return tuple(KeyText(str(path), _read_key(path)) for path in files)
    if settings.builtin_keys:
        return settings.builtin_keys
    raise ConfigError(
        f"no master key for {settings.fqrn}: there is no *.pub file in {settings.keys_dir}; set CVMFS_PUBLIC_KEY to "
        "the files of its keys (--key) or CVMFS_KEYS_DIR to their directory"
    )


def load_blacklist_texts(settings: Settings) -> tuple[tuple[Path, bytes], ...]:
    """The blacklists that exist."""
    texts: list[tuple[Path, bytes]] = []
    for path in settings.blacklists:
        try:
            texts.append((path, read_small_file(path, _BLACKLIST_LIMIT_BYTES)))
        except FileNotFoundError:
            continue
    return tuple(texts)


def _read_key(path: Path) -> bytes:
    try:
        return read_small_file(path, _KEY_LIMIT_BYTES)
    except FileNotFoundError as error:
        raise ConfigError(f"the master key {path} does not exist (CVMFS_PUBLIC_KEY)") from error
