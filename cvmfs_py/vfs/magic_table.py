"""The magic extended attributes for people: what each one means, and an example. A test compares the names.

Concurrency: constants.
"""

from __future__ import annotations

from typing import NamedTuple


class Described(NamedTuple):
    """One attribute. `where` it is: on every entry, or on some."""

    where: str
    meaning: str
    example: str


EVERY = "every entry"
FILES = "files"
LINKS = "links"

DESCRIPTIONS = {
    "user.authz": Described(EVERY, "who may use the repository; only where its owner restricts it", "x509%..."),
    "user.catalog_counters": Described(EVERY, "hash, mountpoint and counters of the catalog", "dir,4"),
    "user.chunk_list": Described(FILES, "hash, offset and size of each chunk", "0a4d...,0,4096"),
    "user.chunks": Described(FILES, "number of chunks", "1"),
    "user.compression": Described(FILES, "how it is compressed on servers", "zlib"),
    "user.cvmfspy_offline": Described(
        EVERY, "why no server vouches for what is shown; empty: one does, or it is pinned", ""
    ),
    "user.cvmfspy_repositories": Described(
        "top of --all", "the repositories that are in use, one a line", "sft.cern.ch"
    ),
    "user.direct_io": Described(FILES, "1: the kernel keeps nothing of it", "0"),
    "user.expires": Described(EVERY, "minutes until a newer revision is asked for", "3"),
    "user.external_file": Described(FILES, "1: its content is on servers of external data", "0"),
    "user.external_host": Described(EVERY, "server of external data in use", "http://data.example.org"),
    "user.external_timeout": Described(EVERY, "seconds, for external data", "10"),
    "user.external_url": Described("external files", "where its content is", "http://data.example.org/file"),
    "user.fqrn": Described(EVERY, "name of the repository", "sft.cern.ch"),
    "user.hash": Described("what has content", "hash of the content", "0a4d55a8d778e5022fab701977c5d840bbc486d0"),
    "user.hitrate": Described(EVERY, "percentage of requests that needed no download", "99.312"),
    "user.host": Described(EVERY, "server in use", "http://s1.example.org/cvmfs/sft.cern.ch"),
    "user.host_list": Described(EVERY, "all servers, from the one in use on", "http://s1...;http://s2..."),
    "user.inode_max": Described(EVERY, "largest inode number so far", "4711"),
    "user.lhash": Described("what has content", "hash of the copy in the cache, computed anew", "0a4d...486d0"),
    "user.logbuffer": Described(EVERY, "the last ten messages, the newest first", "[1 Dec 2026 ...] ..."),
    "user.maxfd": Described(EVERY, "descriptors that the daemon may have open", "65024"),
    "user.ncleanup24": Described(EVERY, "evictions of the last day; -1: not counted", "-1"),
    "user.nclg": Described(EVERY, "catalogs that are open", "12"),
    "user.ndiropen": Described(EVERY, "directories opened", "87"),
    "user.ndownload": Described(EVERY, "downloads", "240"),
    "user.nioerr": Described(EVERY, "requests that were answered with EIO", "0"),
    "user.nopen": Described(EVERY, "files opened, as far as the kernel tells", "1024"),
    "user.pid": Described(EVERY, "process id of the daemon", "4321"),
    "user.proxy": Described(EVERY, "proxy in use", "DIRECT"),
    "user.proxy_list": Described(EVERY, "all proxies, one a line, from the group in use on", "http://squid:3128"),
    "user.proxy_list_external": Described(EVERY, "the same for external data", "DIRECT"),
    "user.pubkeys": Described(EVERY, "the master keys that are trusted", "-----BEGIN PUBLIC KEY-----..."),
    "user.rawlink": Described(LINKS, "target as it is stored, variables and all", "$(ARCH)/lib"),
    "user.repo_counters": Described(EVERY, "counters of the whole repository", "regular,1234"),
    "user.repo_metainfo": Described(EVERY, "the owner's description of the repository", "{...}"),
    "user.revision": Described(EVERY, "revision that is shown", "42"),
    "user.root_hash": Described(EVERY, "its root hash", "02d8bfdd141366e0d11131eb179316290c7b1479"),
    "user.rx": Described(EVERY, "KiB received", "20480"),
    "user.speed": Described(EVERY, "KiB a second while something was waited for", "3400"),
    "user.tag": Described(EVERY, "tag that the mount is pinned to", "v1"),
    "user.timeout": Described(EVERY, "seconds, over a proxy", "5"),
    "user.timeout_direct": Described(EVERY, "seconds, without a proxy", "10"),
    "user.timestamp_last_ioerr": Described(EVERY, "time of the last EIO, in seconds since 1970; 0: never", "0"),
    "user.uptime": Described(EVERY, "minutes since the mount", "90"),
    "user.usedfd": Described(EVERY, "files that are open", "3"),
    "user.useddirp": Described(EVERY, "directories that are open", "0"),
    "user.version": Described(EVERY, "version of this program, with a number for the build", "0.1.0.0"),
    "xfsroot.rawlink": Described(LINKS, "as user.rawlink; links have no user attributes in the kernel", "$(ARCH)/lib"),
}


def format_table() -> str:
    """As a table in Markdown."""
    rows = [
        f"| `{name}` | {each.where} | {each.meaning} | {f'`{each.example}`' if each.example else ''} |"
        for name, each in sorted(DESCRIPTIONS.items())
    ]
    return "\n".join(["| attribute | on | meaning | example |", "|---|---|---|---|", *rows]) + "\n"
