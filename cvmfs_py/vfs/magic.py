"""The magic extended attributes: what each one says of an entry, in pages. Pure.

They tell of the entry, of its catalogs and of the snapshot; what only a running mount knows is asked of `MountFacts`.
Which of them are listed, who may read them and how a name asks for a page is for `xattrs`.

Concurrency: one thread at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from catalog import flags
from cvmfs_py.vfs.facts import NO_METAINFO, TEXT_FACTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from catalog.directory import Located
    from catalog.entry import Entry
    from catalog.opened import OpenObject
    from catalog.statistics import Counters
    from cvmfs_py.vfs.facts import MountFacts
    from cvmfs_py.vfs.snapshot import Snapshot

PAGE_BYTES = 40_000  # a page ends with the record that goes beyond it; the kernel takes values of 65,536 bytes
VALUE_LIMIT_BYTES = 65_536
NO_HOSTS = "internal error: no hosts defined"
FIXED = "never (fixed root catalog)"
_CHUNK_HEADER = b"hash,offset,size\n"
_COMPRESSION_NAMES = {0: "zlib", flags.COMPRESSION_NONE: "none"}
_NO_HASH = "0" * 40
_USER = b"user."
OWN_PREFIX = b"user.cvmfspy_"

Pages: TypeAlias = tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Subject:
    """The entry that is asked about, and what is the same for all entries."""

    located: Located
    snapshot: Snapshot
    facts: MountFacts

    @property
    def entry(self) -> Entry:
        return self.located.entry

    @property
    def is_root(self) -> bool:
        return not self.located.path


@dataclass(frozen=True, slots=True)
class MagicXattr:
    """One attribute: which entries have it, and its pages for those."""

    applies: Callable[[Subject], bool]
    pages: Callable[[Subject, OpenObject], Pages]


def listed_magic_names(subject: Subject) -> tuple[bytes, ...]:
    """The attributes of an entry that can be read through the kernel: it refuses `user.` on links and special files.

    Those that the reference client lacks are for who asks by name: programs take the list for its.
    """
    entry = subject.entry
    hides_user = not (entry.is_regular or entry.is_directory)
    return tuple(
        name
        for name, magic in MAGIC.items()
        if not name.startswith(OWN_PREFIX) and not (hides_user and name.startswith(_USER)) and magic.applies(subject)
    )


def cut_pages(records: Iterable[bytes], header: bytes = b"") -> Pages:
    """The records in pages of about `PAGE_BYTES`, each with the header; no records, no pages."""
    pages: list[bytes] = []
    parts = [header]
    size = len(header)
    for record in records:
        parts.append(record)
        size += len(record)
        if size > PAGE_BYTES:
            pages.append(b"".join(parts))
            parts, size = [header], len(header)
    if len(parts) > 1:
        pages.append(b"".join(parts))
    return tuple(pages)


# --- who has it


def _always(_: Subject) -> bool:
    return True


def _is_regular(subject: Subject) -> bool:
    return subject.entry.is_regular


def _is_symlink(subject: Subject) -> bool:
    return subject.entry.is_symlink


def _is_external(subject: Subject) -> bool:
    return subject.entry.is_regular and subject.entry.is_external and "external_host_list" in subject.facts.values


def _has_hash(subject: Subject) -> bool:
    return subject.entry.content_hash is not None


def _can_hash_local(subject: Subject) -> bool:
    return subject.facts.local_hash is not None and _has_hash(subject)


def _has_metainfo(subject: Subject) -> bool:
    return subject.facts.metainfo is not None


def _needs_membership(subject: Subject) -> bool:
    return subject.snapshot.properties.voms_authz is not None


def _can_expire(subject: Subject) -> bool:
    return subject.snapshot.is_pinned or "expires" in subject.facts.values


# --- what it says


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")


def _one(text_of: Callable[[Subject], str]) -> Callable[[Subject, OpenObject], Pages]:
    return lambda subject, _: (_encode(text_of(subject)),)


def _first_host(subject: Subject, name: str) -> str:
    hosts = subject.facts.sequence(name)
    return hosts[0] if hosts else NO_HOSTS


def _expires(subject: Subject) -> str:
    return FIXED if subject.snapshot.is_pinned else subject.facts.text("expires")


def _external_url(subject: Subject, _: OpenObject) -> Pages:
    hosts = subject.facts.sequence("external_host_list")
    return (_encode(hosts[0]) + subject.located.path if hosts else _encode(NO_HOSTS),)


def _proxies(name: str) -> Callable[[Subject, OpenObject], Pages]:
    return lambda subject, _: cut_pages(_encode(proxy) + b"\n" for proxy in subject.facts.sequence(name)) or (b"",)


def _public_keys(subject: Subject, _: OpenObject) -> Pages:
    return cut_pages(_encode(key) for key in subject.facts.sequence("pubkeys"))


def _metainfo(subject: Subject, open_object: OpenObject) -> Pages:
    metainfo = subject.facts.metainfo
    text = metainfo(open_object) if metainfo is not None else NO_METAINFO
    if len(text) <= VALUE_LIMIT_BYTES:
        return (text,)
    half = PAGE_BYTES // 2  # a long line counts as several records
    lines = text.splitlines(keepends=True)
    return cut_pages(line[start : start + half] for line in lines for start in range(0, len(line), half))


def _format_counters(counters: Counters) -> str:
    return "".join(f"{name},{count}\n" for name, count in sorted(counters.total.items()))


def _repository_counters(subject: Subject, open_object: OpenObject) -> Pages:
    root = subject.snapshot.tree.catalog_for(b"", open_object)
    return (_format_counters(root.counters()).encode(),)


def _catalog_counters(subject: Subject, open_object: OpenObject) -> Pages:
    # By path and in the catalogs of the snapshot, as all of these facts: the entry's own may be of an older revision,
    # and a catalog of another revision must not come into this tree.
    catalog = subject.snapshot.tree.catalog_within(subject.located.path, open_object)
    head = f"catalog_hash: {catalog.content_hash}\ncatalog_mountpoint: ".encode()
    return (head + catalog.mountpoint + b"\n" + _format_counters(catalog.counters()).encode(),)


def _chunk_count(subject: Subject, _: OpenObject) -> Pages:
    entry = subject.entry
    return (b"%d" % (len(subject.located.catalog.chunks(entry)) if entry.is_chunked else 1),)


def _chunk_list(subject: Subject, _: OpenObject) -> Pages:
    entry = subject.entry
    if entry.is_chunked:
        chunks = subject.located.catalog.chunks(entry)
        rows = (f"{chunk.content_hash},{chunk.offset},{chunk.size}\n".encode() for chunk in chunks)
        return cut_pages(rows, _CHUNK_HEADER)
    return (_CHUNK_HEADER + f"{entry.content_hash or _NO_HASH},0,{entry.size}\n".encode(),)


def _local_hash(subject: Subject) -> str:
    content_hash, local_hash = subject.entry.content_hash, subject.facts.local_hash
    return "" if content_hash is None or local_hash is None else local_hash(content_hash)


def _raw_link(subject: Subject, _: OpenObject) -> Pages:
    return (subject.entry.symlink,)


def _authorization(subject: Subject, _: OpenObject) -> Pages:
    return (subject.snapshot.properties.voms_authz or b"",)


def _of_fact(name: str, pages: Callable[[Subject, OpenObject], Pages]) -> MagicXattr:
    return MagicXattr(lambda subject: name in subject.facts.values, pages)


def _text_fact(name: str) -> MagicXattr:
    return _of_fact(name, _one(lambda subject: subject.facts.text(name)))


def _host_fact(name: str) -> MagicXattr:
    return _of_fact(name, _one(lambda subject: _first_host(subject, name)))


MAGIC: Mapping[bytes, MagicXattr] = dict(
    sorted(
        {
            **{_USER + name.encode(): _text_fact(name) for name in TEXT_FACTS},
            b"user.authz": MagicXattr(_needs_membership, _authorization),
            b"user.catalog_counters": MagicXattr(_always, _catalog_counters),
            b"user.chunk_list": MagicXattr(_is_regular, _chunk_list),
            b"user.chunks": MagicXattr(_is_regular, _chunk_count),
            b"user.compression": MagicXattr(
                _is_regular, _one(lambda subject: _COMPRESSION_NAMES.get(subject.entry.compression, "unknown"))
            ),
            b"user.direct_io": MagicXattr(_is_regular, _one(lambda subject: str(int(subject.entry.is_direct_io)))),
            b"user.expires": MagicXattr(_can_expire, _one(_expires)),
            b"user.external_file": MagicXattr(_is_regular, _one(lambda subject: str(int(subject.entry.is_external)))),
            b"user.external_host": _host_fact("external_host_list"),
            b"user.external_url": MagicXattr(_is_external, _external_url),
            b"user.fqrn": MagicXattr(_always, _one(lambda subject: subject.snapshot.fqrn)),
            b"user.hash": MagicXattr(_has_hash, _one(lambda subject: str(subject.entry.content_hash))),
            b"user.host": _host_fact("host_list"),
            b"user.host_list": _of_fact(
                "host_list", _one(lambda subject: ";".join(subject.facts.sequence("host_list")) or NO_HOSTS)
            ),
            b"user.lhash": MagicXattr(_can_hash_local, _one(_local_hash)),
            b"user.logbuffer": _of_fact("logbuffer", _one(lambda subject: subject.facts.log())),
            b"user.proxy_list": _of_fact("proxy_list", _proxies("proxy_list")),
            b"user.proxy_list_external": _of_fact("proxy_list_external", _proxies("proxy_list_external")),
            b"user.pubkeys": _of_fact("pubkeys", _public_keys),
            b"user.rawlink": MagicXattr(_is_symlink, _raw_link),
            b"user.repo_counters": MagicXattr(_always, _repository_counters),
            b"user.repo_metainfo": MagicXattr(_has_metainfo, _metainfo),
            b"user.revision": MagicXattr(_always, _one(lambda subject: str(subject.snapshot.revision))),
            b"user.root_hash": MagicXattr(_always, _one(lambda subject: str(subject.snapshot.root_hash))),
            b"user.tag": MagicXattr(_always, _one(lambda subject: subject.snapshot.tag)),
            b"xfsroot.rawlink": MagicXattr(_is_symlink, _raw_link),
        }.items()
    )
)
