"""Where a repository that is published from here lives: its web root, and beside it its keys and its settings.

`DIR` is the web root; `DIR.keys` holds what nobody else may see, or is a link to the directory that does. Makes and
reads nothing but names. Immutable values.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from cvmfs_py.config.fqrn import is_valid_name
from cvmfs_py.errors import ConfigError, PublishError

MANIFEST = ".cvmfspublished"
WHITELIST = ".cvmfswhitelist"
REFLOG = ".cvmfsreflog"
MASTER_REPLICA = ".cvmfs_master_replica"
LAST_SNAPSHOT = ".cvmfs_last_snapshot"  # replicas of the reference server have it
_NAME_FIELD = re.compile(rb"^N([^\n]*)\n", re.MULTILINE)
_LETTER_LIMIT = 1 << 20


@dataclass(frozen=True, slots=True)
class Place:
    """The directories of one repository, absolute."""

    fqrn: str
    storage_directory: Path
    keys_directory: Path

    @property
    def settings_file(self) -> Path:
        return self.keys_directory / f"{self.fqrn}.conf"

    @property
    def record_file(self) -> Path:
        """The last root that was published from here."""
        return self.keys_directory / f"{self.fqrn}.published"

    @property
    def mark_file(self) -> Path:
        """Is there while a publication is under way."""
        return self.keys_directory / f"{self.fqrn}.writing"

    @property
    def lock_file(self) -> Path:
        return self.keys_directory / "lock"

    @property
    def public_key_file(self) -> Path:
        return self.keys_directory / f"{self.fqrn}.pub"


def default_keys_directory(storage_directory: str | os.PathLike[str]) -> Path:
    """`DIR.keys`, without following links."""
    storage = Path(os.path.abspath(storage_directory))
    return storage.with_name(f"{storage.name}.keys")


def find_name(directory: str | os.PathLike[str]) -> str:
    """The name in the manifest of a web root, not verified."""
    storage = Path(os.path.abspath(directory))
    found, fault = None, "names none"
    try:
        with open(storage / MANIFEST, "rb") as file:
            found = _NAME_FIELD.search(file.read(_LETTER_LIMIT))
    except (FileNotFoundError, NotADirectoryError):
        fault = "is missing"
    except OSError as error:
        raise PublishError(f"{storage / MANIFEST} cannot be read: {error.strerror}") from error
    fqrn = found[1].decode("latin-1") if found else ""
    if not is_valid_name(fqrn):
        raise PublishError(
            f"{directory} holds no repository: its {MANIFEST} {fault}; "
            "`cvmfs-py repo init NAME --storage DIR` makes a new one in an empty directory"
        )
    return fqrn


def find_keys_directory(storage: Path) -> Path | None:
    """`DIR.keys`, or what it is a link to; None: there is none."""
    # Web servers often want the root under another name: then it is a link, and the keys are beside what it points to.
    beside = (default_keys_directory(storage), default_keys_directory(storage.resolve()))
    return next((keys for keys in beside if keys.is_dir()), None)


def find_place(directory: str | os.PathLike[str]) -> Place:
    """Where the repository whose web root is a directory keeps everything."""
    fqrn = find_name(directory)
    storage = Path(os.path.abspath(directory))
    keys = find_keys_directory(storage)
    if keys is None:
        raise ConfigError(
            f"the keys of {fqrn} are not here: there is no {default_keys_directory(storage)}; `cvmfs-py repo adopt "
            "DIR --keys KEYS` takes over a repository that was made elsewhere"
        )
    check_keys_directory(keys, storage)
    return Place(fqrn, storage, keys.resolve())


def check_keys_directory(keys: Path, storage: Path) -> None:
    """Refuses keys that a web server would give to everybody."""
    if keys.resolve().is_relative_to(storage.resolve()):
        raise ConfigError(
            f"the keys must not be in {keys}: everything below {storage} is for everybody; choose another --keys-dir"
        )
