"""Bounded reading of small local files: configuration, keys, blacklists, identity maps.

Knows nothing of what is inside. Never blocks on a pipe or a device that stands where a file should be, nor on a mount
that this process serves itself.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from cvmfs_py import own_mounts
from cvmfs_py.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


def read_small_file(path: Path, limit_bytes: int) -> bytes:
    """The content. FileNotFoundError, also for a missing directory, is for the caller to judge; else ConfigError."""
    own = own_mounts.find_own_mount(path)
    if own is not None:
        raise ConfigError(f"cannot read {path}: it leads into {own}, which this very process serves; keep it elsewhere")
    try:
        # without O_NONBLOCK the open of a named pipe waits for a writer
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except NotADirectoryError as error:
        raise FileNotFoundError(path) from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read {path}: {_reason(error)}") from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ConfigError(f"cannot read {path}: not a regular file")
        content = bytearray()
        while len(content) <= limit_bytes and (piece := os.read(descriptor, limit_bytes + 1 - len(content))):
            content += piece
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {_reason(error)}") from error
    finally:
        os.close(descriptor)
    if len(content) > limit_bytes:
        raise ConfigError(f"cannot read {path}: larger than {limit_bytes} bytes")
    return bytes(content)


def is_directory(path: Path) -> bool:
    """Whether there is a directory that can be read from; what this process serves itself is none."""
    return own_mounts.find_own_mount(path) is None and path.is_dir()


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
