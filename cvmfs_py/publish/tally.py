"""What a publication has done so far, counted for progress bars and summaries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from cvmfs_py.publish.packed import PackedFile


@dataclass(slots=True)
class Tally:
    """Counts that only rise. Of source entries, files are the regular ones, each name of a hard link one."""

    entries: int = 0  # of the source, seen
    files: int = 0
    changed: int = 0  # entries of the repository that were put or have new attributes
    removed: int = 0  # entries of the repository, each with everything below it
    packed_files: int = 0  # whose content was read and is not known to be what it was
    packed_bytes: int = 0
    compared_files: int = 0  # whose content was read and is what it was
    compared_bytes: int = 0
    new_objects: int = 0  # one that two processes stored at the same moment counts twice
    stored_bytes: int = 0  # of new objects

    def count_packed(self, file: PackedFile) -> None:
        self.packed_files += 1
        self.packed_bytes += file.size_bytes
        self.new_objects += file.new_objects
        self.stored_bytes += file.stored_bytes


Observer: TypeAlias = Callable[[Tally], None]  # called often: at every directory or batch


def ignore(tally: Tally) -> None:
    """The observer for whoever does not look."""
