"""What this process serves, and whether a path leads into it: the one place that decides.

Who serves a mount and asks it for something waits for itself, on whatever thread and in whatever child process. So no
path that comes from outside, such as a configured one, is used by a process that serves mounts before it was looked at
here. Links on the way are read one by one, and what is at or below a mount of one's own is never touched; bind mounts
of it count as well, and so does what others have mounted below it. Mounts of other processes are no matter of this
module: who asks them does so in a child, with a time limit.

Concurrency: any thread may ask; mounts come and go at any time.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    Places = Callable[[], Collection[str]]

_LINKS_LIMIT = 40  # the kernel's
_noted: list[Places] = []


@contextmanager
def noted(places: Places) -> Iterator[None]:
    """A mount of this process for the length of the block. `places` tells where it is seen at the moment."""
    _noted.append(places)
    try:
        yield
    finally:
        _noted.remove(places)


def is_any() -> bool:
    """Whether this process serves a mount, or is about to."""
    return bool(_noted)


def find_own_mount(path: str | os.PathLike[str]) -> str | None:
    """The mount of this process that a path leads into, by the place where it does so."""
    if not _noted:
        return None
    return resolve_until(path, frozenset(place for places in tuple(_noted) for place in places()))[1]


def resolve_until(path: str | os.PathLike[str], places: Collection[str]) -> tuple[str, str | None]:
    """A path without links, and the first of these places that it leads into; beyond it no link is read."""
    text = os.fspath(path)
    rest = (text if text.startswith("/") else f"{os.getcwd()}/{text}").split("/")[::-1]
    current, links = "/", 0
    while rest and "/" not in places:
        part = rest.pop()
        if part in ("", "."):
            continue
        if part == "..":
            current = os.path.dirname(current)
            continue
        current = os.path.join(current, part)
        if current in places:
            return os.path.normpath(os.path.join(current, *rest[::-1])), current
        try:
            target = os.readlink(current)
        except OSError:  # no link; or nothing at all, and then what follows will be made there
            continue
        links += 1
        if links > _LINKS_LIMIT:
            break  # whoever uses it gets the error of the kernel
        current = "/" if target.startswith("/") else os.path.dirname(current)
        rest += target.split("/")[::-1]
    return os.path.normpath(os.path.join(current, *rest[::-1])), "/" if "/" in places else None
