"""The extended attributes of an entry, by name: stored ones and magic ones, under the rules of the installation. Pure.

A name may ask for a page of a magic attribute: `NAME~2` gives the third, `NAME@2` the same under a line for people,
`NAME~?` and `NAME@?` tell how many there are. What is listed can be read. Concurrency: one thread at a time.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING

from catalog.xattrs import parse_xattr_blob
from cvmfs_py.config.parameters import XattrVisibility
from cvmfs_py.errors import FsError
from cvmfs_py.vfs.magic import MAGIC, listed_magic_names

if TYPE_CHECKING:
    from collections.abc import Collection

    from catalog.opened import OpenObject
    from cvmfs_py.config.settings import Settings
    from cvmfs_py.vfs.magic import Pages, Subject

_MACHINE = b"~"
_HUMAN = b"@"
_COUNT = b"?"
_PAGE_DIGITS = 9  # there are never so many pages, and every number of so few digits is cheap
_ROOT_GID = 0


@dataclass(frozen=True, slots=True)
class XattrRules:
    """Which magic attributes are listed, and which names only members of some groups may know."""

    visibility: XattrVisibility = XattrVisibility.ROOT_ONLY
    protected: frozenset[bytes] = frozenset()
    privileged_gids: frozenset[int] = frozenset()

    def may_read(self, name: bytes, gids: Collection[int]) -> bool:
        """Whether a caller with these groups may know of the attribute."""
        return name not in self.protected or _ROOT_GID in gids or not self.privileged_gids.isdisjoint(gids)


def make_xattr_rules(settings: Settings) -> XattrRules:
    return XattrRules(
        visibility=settings.magic_xattrs_visibility,
        protected=frozenset(name.encode("utf-8", "surrogateescape") for name in settings.protected_xattrs),
        privileged_gids=frozenset(settings.xattr_privileged_gids),
    )


def list_names(subject: Subject, rules: XattrRules, gids: Collection[int]) -> tuple[bytes, ...]:
    """The names that a listing shows to a caller with these groups, each once."""
    visibility = rules.visibility
    names: dict[bytes, None] = {}
    if visibility is XattrVisibility.ALWAYS or (visibility is XattrVisibility.ROOT_ONLY and subject.is_root):
        names.update(dict.fromkeys(listed_magic_names(subject)))
    for name in parse_xattr_blob(subject.entry.xattr_blob):
        base = _split_name(name)[0]
        # A magic attribute hides the stored one, also where it has no value itself.
        if base not in MAGIC or (base == name and MAGIC[name].applies(subject)):
            names[name] = None
    return tuple(name for name in names if rules.may_read(name, gids) and rules.may_read(_split_name(name)[0], gids))


def get_value(
    subject: Subject, name: bytes, rules: XattrRules, gids: Collection[int], open_object: OpenObject
) -> bytes:
    """The value of an attribute, listed or not; ENODATA where there is none for this caller.

    Raises NotLocal for what has to be fetched first, CatalogError for a damaged catalog.
    """
    base, separator, page = _split_name(name)
    if not rules.may_read(base, gids) or not rules.may_read(name, gids):
        raise _absent()
    magic = MAGIC.get(base)
    if magic is not None:
        if not magic.applies(subject):
            raise _absent()
        return _choose_page(magic.pages(subject, open_object), separator, page)
    stored = parse_xattr_blob(subject.entry.xattr_blob)
    value = stored.get(name)  # first, because a name may have such a character of its own
    if value is None and (not separator or page == _COUNT or page.isdigit()):
        value = stored.get(base)
    if value is None:
        raise _absent()
    return value


def _split_name(name: bytes) -> tuple[bytes, bytes, bytes]:
    """The name before the first separator, the separator, and the page behind the last one."""
    separator = _HUMAN if _HUMAN in name else _MACHINE if _MACHINE in name else b""
    if not separator:
        return name, b"", b""
    return name.partition(separator)[0], separator, name.rpartition(separator)[2]


def _choose_page(pages: Pages, separator: bytes, page: bytes) -> bytes:
    count = len(pages)
    if separator and page == _COUNT:
        return f"num_pages, {count}".encode() if separator == _MACHINE else _describe_access(count).encode()
    if separator and not page.isdigit():
        raise _absent()
    digits = page.lstrip(b"0")
    number = int(digits or b"0") if len(digits) <= _PAGE_DIGITS else count
    if separator != _HUMAN:
        if number >= count:
            raise _absent()
        return pages[number]
    if number >= count:
        return (
            f"Page requested does not exists. There are {count} pages available.\n{_describe_access(count)}"
        ).encode()
    header = (
        f"# Access page at idx: {number}. Total num pages: {count} (access other pages: xattr~<page_num>, "
        "starting  with 0; number of pages available: xattr~?)\n"
    )
    return header.encode() + pages[number]


def _describe_access(count: int) -> str:
    return (
        "Access xattr with xattr~<page_num> (machine-readable mode) or  xattr@<page_num> (human-readable mode).\n"
        f"Pages available: {count}"
    )


def _absent() -> FsError:
    return FsError(errno.ENODATA, "there is no such attribute")
