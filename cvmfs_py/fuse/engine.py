"""What an engine is: who speaks with the kernel for a space of inodes. A protocol only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cvmfs_py.fuse.volume import Volume
    from cvmfs_py.vfs.inodes import Inode


class Engine(Protocol):
    """Serves one mount."""

    async def serve(self, descriptor: int, options: Sequence[str]) -> None:
        """Answers the kernel over a mounted descriptor until the mount ends; never raises for what a request asks."""

    def stop(self) -> None:
        """Lets `serve` end soon, also when the mount goes on."""

    def revision_changed(self, root: Inode) -> None:
        """The repository with this root shows another snapshot: what the kernel knows of its names is no longer so."""

    @property
    def waiting_count(self) -> int:
        """Requests that are not answered yet."""

    @property
    def kept_count(self) -> int:
        """Objects that are kept open, because they may be read again."""

    def forget_volume(self, volume: Volume) -> None:
        """A volume is gone for good: nothing of it is kept."""
