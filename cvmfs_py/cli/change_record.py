"""What `diff` and `repo diff` show: changes as lines or JSON, and their sum. Prints nothing by itself but those."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from cvmfs_py.cli.output import counted, latin1, size_text, write_json, write_json_line, write_line
from cvmfs_py.publish.comparing import ChangeKind

if TYPE_CHECKING:
    import argparse

    from cvmfs_py.publish.comparing import Change

LETTERS = "A added, D deleted, M modified, m only attributes modified"
_WORDS = {
    ChangeKind.ADDED: "added",
    ChangeKind.DELETED: "deleted",
    ChangeKind.MODIFIED: "modified",
    ChangeKind.ATTRIBUTES: "attributes",
}


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--stat", action="store_true", help="only how many there are of each, and how the size changed")
    parser.add_argument("--json", action="store_true", help="one JSON object a line; paths as latin-1")


class ChangeWriter:
    """Shows changes as they are found or, with --stat, their sum at the end."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._as_json: bool = options.json
        self._is_sum: bool = options.stat
        self._counts: Counter[str] = Counter()
        self._added_bytes = 0
        self._removed_bytes = 0

    def show(self, change: Change) -> None:
        if self._is_sum:
            self._add(change)
        elif self._as_json:
            write_json_line({"change": change.kind.value, "path": latin1(change.path.removeprefix(b"/"))})
        else:
            write_line(change.kind.value.encode() + b" " + (change.path or b"/"))

    def finish(self) -> None:
        if not self._is_sum:
            return
        if self._as_json:
            numbers: dict[str, Any] = {word: self._counts[word] for word in _WORDS.values()}
            write_json(numbers | {"added_bytes": self._added_bytes, "removed_bytes": self._removed_bytes})
            return
        told = [f"{self._counts[word]:,} {word}" for word in list(_WORDS.values())[:3]]
        told.append(counted(self._counts["attributes"], "entry", "entries") + " with other attributes")
        sizes = f"{size_text(self._added_bytes)} came, {size_text(self._removed_bytes)} went"
        write_line(f"{', '.join(told)}; {sizes}".encode())

    def _add(self, change: Change) -> None:
        """Content of regular files: what is modified has gone and come."""
        self._counts[_WORDS[change.kind]] += 1
        if change.kind is not ChangeKind.ATTRIBUTES:
            self._added_bytes += change.new.entry.size if change.new and change.new.entry.is_regular else 0
            self._removed_bytes += change.old.entry.size if change.old and change.old.entry.is_regular else 0
