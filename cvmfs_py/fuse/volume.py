"""What the engines serve: one repository with its driver, seen from the kernel's side. Protocols only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from cache.pins import Pin
    from cache.ref import ObjectRef
    from catalog.content import Span
    from catalog.opened import OpenObject
    from cvmfs_py.stats import Stats
    from cvmfs_py.vfs.attrs import View
    from cvmfs_py.vfs.files import Following, Node, NodePage
    from cvmfs_py.vfs.inodes import Inode
    from cvmfs_py.vfs.statfs import FileSystemStatus

T = TypeVar("T")
FOREVER_S = 365 * 86400.0  # as long as the kernel keeps anything


@dataclass(frozen=True, slots=True)
class KernelTimes:
    """How long the kernel may answer by itself for the names in the root, where nobody takes back what it was told.

    Inodes are bound to content, so what they say never changes, nor what the names in them lead to.
    """

    entry_s: float
    negative_s: float
    attribute_s: float = FOREVER_S
    root_attribute_s: float = FOREVER_S  # the root is the one inode that follows a new revision
    are_taken_back: bool = False  # an engine is told when they are no longer so, by `revision_changed`


class Files(Protocol):
    """The file system core of one volume. What its methods mean stands in `vfs.files`."""

    @property
    def root(self) -> Inode: ...

    def remember(self, ino: int, count: int = 1) -> None: ...

    def forget(self, ino: int, count: int) -> None: ...

    def node(self, ino: Inode, open_object: OpenObject) -> Node: ...

    def lookup(self, parent: Inode, name: bytes, open_object: OpenObject) -> Node | None: ...

    def listing(self, ino: Inode) -> int: ...

    def page(
        self, ino: Inode, after_rowid: int, limit: int, open_object: OpenObject, listing: int | None = None
    ) -> NodePage: ...

    def parent(self, ino: Inode, open_object: OpenObject) -> Inode: ...

    def read_link(self, ino: Inode, open_object: OpenObject) -> bytes: ...

    def spans(self, ino: Inode, open_object: OpenObject) -> tuple[Span, ...]: ...

    def following(self, ino: Inode, limit: int, open_object: OpenObject) -> Following: ...


class Volume(Protocol):
    """One repository in a mount, or the directory of several."""

    @property
    def files(self) -> Files: ...

    @property
    def view(self) -> View: ...

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

    @property
    def is_ready(self) -> bool:
        """Whether every volume can be asked now."""

    async def ready(self) -> None:
        """Waits until the volumes can be asked, with a deadline; raises why they never will be."""
