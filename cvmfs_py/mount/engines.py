"""The engines by name. Imports none of them before it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cvmfs_py.errors import ConfigError, MountError

if TYPE_CHECKING:
    from cvmfs_py.fuse.channel import Channel
    from cvmfs_py.fuse.engine import Engine
    from cvmfs_py.fuse.failures import Failures
    from cvmfs_py.fuse.volume import Space

ENGINES = ("channel", "pyfuse3")
ONE_MOUNT_ENGINES = frozenset({"pyfuse3"})  # libfuse has one session in a process


def make_engine(name: str, space: Space, failures: Failures) -> Engine:
    """An engine that serves a space of inodes."""
    if name == "channel":
        return make_channel(space, failures)
    if name == "pyfuse3":
        try:
            from cvmfs_py.fuse.pyfuse3_engine import Pyfuse3Engine
        except ImportError as error:
            raise MountError(
                f"the engine pyfuse3 cannot be used: {error}; use --engine channel, or pip install pyfuse3"
            ) from error
        return Pyfuse3Engine(space, failures)
    raise ConfigError(f"there is no engine {name!r}; there are {' and '.join(ENGINES)}")


def make_channel(space: Space, failures: Failures) -> Channel:
    """The engine that can also tell the kernel what it has not asked for."""
    from cvmfs_py.fuse.channel import Channel

    return Channel(space, failures)
