"""What the engines serve: one repository with its driver, seen from the kernel's side. Protocols only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from cache.pins import Pin
    from cache.ref import ObjectRef
    from catalog.opened import OpenObject
    from cvmfs_py.stats import Stats
    from cvmfs_py.vfs.files import RepositoryFiles
    from cvmfs_py.vfs.inodes import Inode
    from cvmfs_py.vfs.statfs import FileSystemStatus

T = TypeVar("T")
FOREVER_S = 365 * 86400.0  # as long as the kernel keeps anything


@dataclass(frozen=True, slots=True)
class KernelTimes:
    """How long the kernel may answer by itself. Inodes are bound to content, so what they say never changes."""

    entry_s: float
    negative_s: float
    attribute_s: float = FOREVER_S
    root_attribute_s: float = FOREVER_S  # the root is the one inode that follows a new revision


class Volume(Protocol):
    """One repository in a mount."""

    @property
    def files(self) -> RepositoryFiles: ...

    @property
    def times(self) -> KernelTimes: ...

    @property
    def stats(self) -> Stats: ...

    def open_object(self, ref: ObjectRef) -> Pin:
        """A local object, or NotLocal."""

    def attempt(self, operation: Callable[[OpenObject], T]) -> T:
        """The operation's value when all it needs is local; else NotLocal."""

    async def run(self, operation: Callable[[OpenObject], T], *, is_data: bool = False) -> T:
        """The operation's value, once what it needs was fetched; never later than a deadline."""

    def fetch_ahead(self, refs: tuple[ObjectRef, ...]) -> None:
        """Fetches what will be wanted soon, in the background, when there is nothing more urgent."""

    def list_xattrs(self, ino: Inode, gids: Collection[int], open_object: OpenObject) -> tuple[bytes, ...]: ...

    def xattr(self, ino: Inode, name: bytes, gids: Collection[int], open_object: OpenObject) -> bytes: ...

    def status(self, open_object: OpenObject) -> FileSystemStatus: ...


class Space(Protocol):
    """All inodes of one mount."""

    def owner(self, ino: int) -> Volume:
        """The volume of an inode; FsError where there is none."""

    async def ready(self) -> None:
        """Waits until the volumes can be asked, with a deadline; raises why they never will be."""
