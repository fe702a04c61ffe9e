"""Named pins on disk: sets of objects that eviction leaves alone, also in other processes and after a lost index.

A file starts with a line of JSON (label, state, size); every further line is one hash text: a set may have a million.

Concurrency: any process may add and remove sets; readers notice by the files' times.
"""

from __future__ import annotations

import json
import logging
import os
from typing import TYPE_CHECKING

from cache.address import parse_hash
from cache.reports import NamedPin
from cache.smallfiles import is_name, read_small, remove_small, require_name, write_small

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cache.address import ContentHash
    from cache.layout import Layout

logger = logging.getLogger(__name__)


def named_pin(
    name: str, label: str, hashes: Iterable[ContentHash], is_complete: bool, size_bytes: int | None
) -> NamedPin:
    texts = frozenset(str(content_hash) for content_hash in hashes)
    return NamedPin(require_name(name), label, texts, is_complete, size_bytes)


class NamedPins:
    """The named pins of one cache directory."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._known: dict[str, tuple[tuple[int, int, int], NamedPin]] = {}

    def write(self, pin: NamedPin) -> None:
        head = json.dumps({"label": pin.label, "complete": pin.is_complete, "size_bytes": pin.size_bytes})
        write_small(self._layout, self._layout.pins, pin.name, "\n".join([head, *sorted(pin.hashes), ""]).encode())

    def remove(self, name: str) -> bool:
        return remove_small(self._layout, self._layout.pins, name)

    def all(self) -> tuple[NamedPin, ...]:
        """Every set, read again only where its file changed."""
        try:
            names = sorted(filter(is_name, os.listdir(self._layout.pins)))
        except FileNotFoundError:
            names = []
        found: dict[str, tuple[tuple[int, int, int], NamedPin]] = {}
        for name in names:
            try:
                info = os.stat(os.path.join(self._layout.pins, name))
            except FileNotFoundError:  # unpinned meanwhile
                continue
            version = (info.st_ino, info.st_mtime_ns, info.st_size)
            known = self._known.get(name)
            if known is not None and known[0] == version:
                found[name] = known
                continue
            data = read_small(self._layout.pins, name)
            if data is not None:
                found[name] = (version, _parse(name, data))
        self._known = found
        return tuple(pin for _, pin in found.values())

    def hashes(self) -> frozenset[str]:
        """Every object that is pinned by any name."""
        sets = [pin.hashes for pin in self.all()]
        return sets[0] if len(sets) == 1 else frozenset().union(*sets)


def _parse(name: str, data: bytes) -> NamedPin:
    head, *lines = data.decode("utf-8", "replace").split("\n")
    is_complete, size_bytes = True, None
    try:
        said = json.loads(head)
        label = str(said["label"])
        is_complete = said.get("complete") is not False  # once nothing was noted of it
        size_bytes = size if isinstance(size := said.get("size_bytes"), int) else None
    except (ValueError, TypeError, KeyError):
        label = ""
        lines.append(head)
    hashes = frozenset(line for line in lines if parse_hash(line))
    if len(hashes) != len([line for line in lines if line]):
        logger.warning("the pin file %s of the cache has lines that are no hashes; they are ignored", name)
    return NamedPin(name, label, hashes, is_complete, size_bytes)
