"""Extended attributes of single entries: flavours, pages, visibility, protection, stored ones beside magic ones."""

from __future__ import annotations

import errno
import stat
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from cache.address import Kind
from cache.ref import NotLocal, ObjectRef
from catalog.tree import CatalogTree
from catalog.xattrs import pack_xattr_blob
from cvmfs_py.config.parameters import XattrVisibility
from cvmfs_py.errors import FsError
from cvmfs_py.vfs.attrs import View
from cvmfs_py.vfs.facts import FACT_NAMES, NO_METAINFO, MountFacts, read_metainfo
from cvmfs_py.vfs.magic import FIXED, MAGIC, NO_HOSTS, PAGE_BYTES, VALUE_LIMIT_BYTES, Subject, cut_pages
from cvmfs_py.vfs.snapshot import Snapshot
from cvmfs_py.vfs.xattrs import XattrRules, get_value, list_names, make_xattr_rules
from tests.catalog_fixtures import CatalogMaker, Objects, Row, chunked, directory, regular, store_catalog, symlink
from tests.unit.config_machine import Machine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cache.address import ContentHash

EXTERNAL = 4 | 128 | 1 << 11  # a file, external, not compressed
DEFAULT = XattrRules()
ALWAYS = XattrRules(XattrVisibility.ALWAYS)
FACTS: dict[str, Any] = {
    **{name: (lambda name=name: f"<{name}>") for name in FACT_NAMES},
    "external_host_list": lambda: ("http://e1/data", "http://e2"),
    "host_list": lambda: ("http://h2", "http://h1"),
    "logbuffer": lambda: [f"[now] {number}" for number in range(12)],
    "proxy_list": lambda: ("http://p:3128", "DIRECT"),
    "proxy_list_external": tuple,
    "pubkeys": lambda: ("KEY A\n", "KEY B\n"),
    "pid": lambda: 4711,
}
MANY_CHUNKS = [(number * 4, 4, b"%020d" % (number + 1)) for number in range(2000)]


class World:
    """A small repository, all of it here, and an entry at a time to ask about."""

    def __init__(self, objects: Objects) -> None:
        self.objects = objects
        blob = pack_xattr_blob(
            {b"user.plain": b"value", b"user.a~b": b"tilde", b"user.hash": b"stored", b"user.fqrn~0": b"stored"}
        ).blob
        self.nested = store_catalog(
            objects,
            CatalogMaker(
                [directory(b"/sw", flags=33), regular(b"/sw/file")],
                root_prefix=b"/sw",
                counters={"self_regular": 1, "self_dir": 1},
            ),
        )
        rows = [
            directory(b"", rowid=1),
            directory(b"/sw", flags=3),
            directory(b"/directory", xattr=blob),
            regular(b"/file", b"content", xattr=blob),
            regular(b"/direct", flags=4 | 0x10000),
            regular(b"/zstd", flags=4 | 2 << 11),
            regular(b"/external", flags=EXTERNAL),
            chunked(b"/chunked", MANY_CHUNKS),
            symlink(b"/link", b"$(OS)/x"),
            Row(b"/pipe", stat.S_IFIFO | 0o644),
        ]
        root = store_catalog(
            objects,
            CatalogMaker(
                rows,
                nested=[(b"/sw", str(self.nested.content_hash), 0)],
                counters={"self_regular": 6, "subtree_regular": 1, "self_dir": 3, "subtree_dir": 1},
                properties={"voms_authz": "x509%/cms"},
            ),
        )
        self.tree = CatalogTree(root)
        properties = self.tree.root_properties(objects)
        self.snapshot = Snapshot("test.example.org", self.tree, properties, View(0, 0), tag="v1")
        self.facts = MountFacts(FACTS, lambda content_hash: f"local {content_hash}", lambda _: b"{}")

    def subject(self, path: bytes) -> Subject:
        located = self.tree.lookup(path, self.objects)
        assert located is not None
        return Subject(located, self.snapshot, self.facts)

    def get(self, path: bytes, name: str, rules: XattrRules = DEFAULT, gids: tuple[int, ...] = (5,)) -> str:
        """The value, or the name of the error."""
        try:
            value = get_value(self.subject(path), name.encode(), rules, gids, self.objects)
        except FsError as error:
            return errno.errorcode[error.errno]
        return value.decode()

    def names(self, path: bytes, rules: XattrRules = DEFAULT, gids: tuple[int, ...] = (5,)) -> list[str]:
        names = [name.decode() for name in list_names(self.subject(path), rules, gids)]
        assert len(names) == len(set(names))
        return names


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(Objects(tmp_path / "objects"))
    yield world
    world.tree.close()
    assert world.objects.open_count == 0


def file_hash(world: World, path: bytes) -> ContentHash:
    content_hash = world.subject(path).entry.content_hash
    assert content_hash is not None
    return content_hash


class TestFlavours:
    @pytest.mark.parametrize(
        ("path", "name", "value"),
        [
            (b"/chunked", "chunks", "2000"),
            (b"/file", "chunks", "1"),
            (b"/link", "chunks", "ENODATA"),
            (b"", "chunk_list", "ENODATA"),
            (b"/file", "compression", "zlib"),
            (b"/external", "compression", "none"),
            (b"/zstd", "compression", "unknown"),
            (b"/pipe", "compression", "ENODATA"),
            (b"/direct", "direct_io", "1"),
            (b"/file", "direct_io", "0"),
            (b"/directory", "direct_io", "ENODATA"),
            (b"/external", "external_file", "1"),
            (b"/file", "external_file", "0"),
            (b"/external", "external_url", "http://e1/data/external"),
            (b"/file", "external_url", "ENODATA"),
            (b"/chunked", "hash", "ENODATA"),
            (b"", "hash", "ENODATA"),
            (b"/chunked", "lhash", "ENODATA"),
            (b"/link", "rawlink", "$(OS)/x"),
            (b"/file", "rawlink", "ENODATA"),
            (b"/link", "fqrn", "test.example.org"),
            (b"/pipe", "tag", "v1"),
            (b"/sw/file", "authz", "x509%/cms"),
            (b"/file", "revision", "1"),
            (b"/file", "expires", "<expires>"),
            (b"/file", "host", "http://h2"),
            (b"/file", "host_list", "http://h2;http://h1"),
            (b"/file", "external_host", "http://e1/data"),
            (b"/file", "external_host_list", "ENODATA"),
            (b"/file", "proxy_list", "http://p:3128\nDIRECT\n"),
            (b"/file", "proxy_list_external", ""),
            (b"/file", "pubkeys", "KEY A\nKEY B\n"),
            (b"/file", "pid", "4711"),
            (b"/file", "uptime", "<uptime>"),
            (b"/file", "repo_metainfo", "{}"),
            (b"/file", "nosuch", "ENODATA"),
        ],
    )
    def test_values(self, world: World, path: bytes, name: str, value: str) -> None:
        assert world.get(path, f"user.{name}") == value

    def test_hashes(self, world: World) -> None:
        content_hash = file_hash(world, b"/external")
        assert world.get(b"/external", "user.hash") == str(content_hash)
        assert world.get(b"/external", "user.lhash") == f"local {content_hash}"
        assert world.get(b"/external", "user.root_hash") == str(world.tree.root_ref.content_hash)
        assert world.get(b"/external", "user.chunk_list") == f"hash,offset,size\n{content_hash},0,1\n"

    def test_the_raw_link_has_a_name_that_linux_lets_through(self, world: World) -> None:
        assert world.get(b"/link", "xfsroot.rawlink") == "$(OS)/x"
        assert world.get(b"/file", "xfsroot.rawlink") == "ENODATA"

    def test_the_log_is_short(self, world: World) -> None:
        world.facts = MountFacts({"logbuffer": lambda: ["x" * 5000, *"abcdefghijk"]})
        first, *others = world.get(b"", "user.logbuffer").splitlines()
        assert first == "x" * 4096 + " <snip>"
        assert others == list("abcdefghi")

    def test_no_hosts(self, world: World) -> None:
        world.facts = MountFacts({"host_list": tuple, "external_host_list": tuple, "pubkeys": tuple})
        for name in ("host", "host_list", "external_host", "external_url"):
            assert world.get(b"/external", f"user.{name}") == NO_HOSTS

    def test_a_pinned_snapshot_never_expires(self, world: World) -> None:
        world.facts = MountFacts()
        assert world.get(b"", "user.expires") == "ENODATA"
        world.snapshot = replace(world.snapshot, is_pinned=True)
        assert world.get(b"", "user.expires") == FIXED

    def test_what_nobody_knows_does_not_exist(self, world: World) -> None:
        world.facts = MountFacts()
        known = world.names(b"/external", ALWAYS)
        assert "user.fqrn" in known
        assert "user.hash" in known
        for name in ("pid", "host", "host_list", "external_url", "lhash", "repo_metainfo", "pubkeys", "logbuffer"):
            assert world.get(b"/external", f"user.{name}") == "ENODATA"
            assert f"user.{name}" not in known

    def test_text_of_any_kind_can_be_said(self, world: World) -> None:
        world.facts = MountFacts({"version": lambda: "\udcff\ud800é"})
        assert world.get(b"", "user.version") == "\\udcff\\ud800é"


class TestCounters:
    def test_of_the_repository_are_the_same_everywhere(self, world: World) -> None:
        for path in (b"", b"/file", b"/sw/file"):
            lines = world.get(path, "user.repo_counters").splitlines()
            assert lines == sorted(lines)
            assert len(lines) == 12
            assert {"regular,7", "dir,4", "chunks,0"} <= set(lines)

    def test_of_a_mountpoint_are_those_of_its_own_catalog(self, world: World) -> None:
        for path in (b"/sw", b"/sw/file"):
            lines = world.get(path, "user.catalog_counters").splitlines()
            assert lines[:2] == [f"catalog_hash: {world.nested.content_hash}", "catalog_mountpoint: /sw"]
            assert "regular,1" in lines
        lines = world.get(b"/file", "user.catalog_counters").splitlines()
        assert lines[:2] == [f"catalog_hash: {world.tree.root_ref.content_hash}", "catalog_mountpoint: "]

    def test_of_a_mountpoint_wait_for_its_catalog(self, world: World) -> None:
        world.objects.missing.add(world.nested.content_hash)
        with pytest.raises(NotLocal) as caught:
            world.get(b"/sw", "user.catalog_counters")
        assert [ref.content_hash for ref in caught.value.refs] == [world.nested.content_hash]
        world.objects.missing.clear()
        assert "catalog_mountpoint: /sw\n" in world.get(b"/sw", "user.catalog_counters")

    def test_nothing_else_of_a_mountpoint_waits(self, world: World) -> None:
        world.objects.missing.add(world.nested.content_hash)
        for name in MAGIC.keys() - {b"user.catalog_counters"}:
            world.get(b"/sw", name.decode())


class TestPages:
    def test_the_plain_name_is_page_0(self, world: World) -> None:
        plain = world.get(b"/chunked", "user.chunk_list")
        assert world.get(b"/chunked", "user.chunk_list~0") == plain
        assert world.get(b"/chunked", "user.chunk_list~000") == plain
        header = (
            "# Access page at idx: 0. Total num pages: 3 (access other pages: xattr~<page_num>, starting  with 0; "
            "number of pages available: xattr~?)\n"
        )
        assert world.get(b"/chunked", "user.chunk_list@0") == header + plain

    def test_all_pages_are_the_whole(self, world: World) -> None:
        assert world.get(b"/chunked", "user.chunk_list~?") == "num_pages, 3"
        pages = [world.get(b"/chunked", f"user.chunk_list~{number}") for number in range(3)]
        rows = [row for page in pages for row in page.removeprefix("hash,offset,size\n").splitlines()]
        assert rows == [f"{digest.hex()},{offset},{size}" for offset, size, digest in MANY_CHUNKS]
        for page in pages[:-1]:
            assert PAGE_BYTES < len(page) < PAGE_BYTES + 100

    @pytest.mark.parametrize(
        "page", ["~3", "~1000", "~xxx", "~", "@", "~-2", "@-2", "@x", "~+1", "~ 1", "~" + "9" * 200]
    )
    def test_pages_that_there_are_not(self, world: World, page: str) -> None:
        assert world.get(b"/chunked", f"user.chunk_list{page}") == "ENODATA"

    @pytest.mark.parametrize("page", ["3", "1000", "9" * 200])
    def test_people_are_told_that_there_is_no_such_page(self, world: World, page: str) -> None:
        text = world.get(b"/chunked", f"user.chunk_list@{page}")
        assert text.startswith("Page requested does not exists. There are 3 pages available.")

    def test_people_are_told_how_to_ask(self, world: World) -> None:
        text = world.get(b"/chunked", "user.chunk_list@?")
        assert text.startswith("Access xattr with xattr~<page_num>")
        assert text.endswith("\nPages available: 3")

    def test_everything_has_pages(self, world: World) -> None:
        assert world.get(b"/file", "user.fqrn~0") == "test.example.org"
        assert world.get(b"/file", "user.fqrn~1") == "ENODATA"
        assert world.get(b"/file", "user.fqrn~?") == "num_pages, 1"
        assert world.get(b"/file", "user.fqrn@0").endswith("\ntest.example.org")

    def test_no_keys_are_no_pages(self, world: World) -> None:
        world.facts = MountFacts({"pubkeys": tuple})
        assert world.get(b"", "user.pubkeys") == "ENODATA"
        assert world.get(b"", "user.pubkeys~?") == "num_pages, 0"

    def test_the_separators(self, world: World) -> None:
        """The page is behind the last separator, the name before the first; the one for people wins."""
        assert world.get(b"/file", "user.fqrn~5~0") == "test.example.org"
        assert world.get(b"/file", "user.fqrn@5@0").startswith("# Access page at idx: 0.")
        assert world.get(b"/chunked", "user.fqrn~0@0") == "ENODATA"

    def test_cutting(self) -> None:
        assert cut_pages([]) == ()
        assert cut_pages([b""], b"h") == (b"h",)
        big = b"x" * PAGE_BYTES
        assert cut_pages([big, b"y", b"z"], b"h") == (b"h" + big, b"hyz")
        assert cut_pages([big, b"y", b"z"]) == (big + b"y", b"z")


class TestMetainfo:
    def test_is_the_object_that_the_manifest_names(self, world: World) -> None:
        content = b'{ "administrator": "\xc3\xa4" }\n'
        ref = ObjectRef(world.objects.add(content), Kind.METAINFO)
        world.facts = MountFacts(metainfo=lambda open_object: read_metainfo(ref, open_object))
        assert world.get(b"", "user.repo_metainfo").encode() == content
        world.objects.missing.add(ref.content_hash)
        with pytest.raises(NotLocal):
            world.get(b"", "user.repo_metainfo")

    def test_may_not_exist(self, world: World) -> None:
        world.facts = MountFacts(metainfo=lambda open_object: read_metainfo(None, open_object))
        assert world.get(b"", "user.repo_metainfo").encode() == NO_METAINFO

    @pytest.mark.parametrize("line", [b"short line\n", b"y" * 90_000 + b"\n"])
    def test_comes_in_pages_when_it_is_too_large_for_the_kernel(self, world: World, line: bytes) -> None:
        content = line * (150_000 // len(line))
        world.facts = MountFacts(metainfo=lambda _: content)
        count = int(world.get(b"", "user.repo_metainfo~?").removeprefix("num_pages, "))
        pages = [world.get(b"", f"user.repo_metainfo~{number}").encode() for number in range(count)]
        assert b"".join(pages) == content
        assert all(len(page) <= VALUE_LIMIT_BYTES for page in pages)


class TestVisibility:
    def test_by_default_only_the_root_lists_magic_ones(self, world: World) -> None:
        assert "user.fqrn" in world.names(b"")
        assert "user.chunks" not in world.names(b"")
        for path in (b"/sw", b"/sw/file", b"/link", b"/chunked"):
            assert world.names(path) == []
            assert world.get(path, "user.fqrn") == "test.example.org"

    def test_always(self, world: World) -> None:
        assert {"user.fqrn", "user.chunks", "user.plain"} <= set(world.names(b"/file", ALWAYS))
        assert world.names(b"/sw", ALWAYS) == world.names(b"")

    def test_never(self, world: World) -> None:
        never = XattrRules(XattrVisibility.NEVER)
        assert world.names(b"", never) == []
        assert world.get(b"", "user.fqrn", never) == "test.example.org"
        assert world.names(b"/file", never) == ["user.a~b", "user.hash", "user.plain"]

    def test_links_and_special_files_list_what_linux_lets_through(self, world: World) -> None:
        assert world.names(b"/link", ALWAYS) == ["xfsroot.rawlink"]
        assert world.names(b"/pipe", ALWAYS) == []

    def test_what_is_listed_can_be_read(self, world: World) -> None:
        for path in (b"", b"/sw", b"/sw/file", b"/directory", b"/file", b"/external", b"/chunked", b"/link", b"/pipe"):
            for name in world.names(path, ALWAYS):
                assert world.get(path, name) != "ENODATA", (path, name)


class TestProtection:
    RULES = XattrRules(XattrVisibility.ALWAYS, frozenset((b"user.fqrn", b"user.pid", b"user.plain")), frozenset((7, 8)))

    @pytest.mark.parametrize("gids", [(0,), (7,), (5, 8)])
    def test_privileged_groups_see_all(self, world: World, gids: tuple[int, ...]) -> None:
        assert world.get(b"/file", "user.fqrn", self.RULES, gids) == "test.example.org"
        assert world.get(b"/file", "user.plain", self.RULES, gids) == "value"
        assert {"user.fqrn", "user.plain"} <= set(world.names(b"/file", self.RULES, gids))

    @pytest.mark.parametrize("gids", [(), (5,), (70, 80)])
    def test_others_do_not_even_hear_of_them(self, world: World, gids: tuple[int, ...]) -> None:
        for name in ("user.fqrn", "user.fqrn~0", "user.fqrn@?", "user.pid", "user.plain", "user.plain~0"):
            assert world.get(b"/file", name, self.RULES, gids) == "ENODATA"
        assert not {"user.fqrn", "user.plain"} & set(world.names(b"/file", self.RULES, gids))
        assert world.get(b"/file", "user.tag", self.RULES, gids) == "v1"

    def test_the_rules_come_from_the_settings(self, tmp_path: Path) -> None:
        machine = Machine(tmp_path)
        machine.etc_files(
            {
                "default.conf": "CVMFS_XATTR_PROTECTED_XATTRS=user.fqrn,user.pid\nCVMFS_XATTR_PRIVILEGED_GIDS=7\n"
                "CVMFS_HIDE_MAGIC_XATTRS=yes\n"
            }
        )
        expected = XattrRules(XattrVisibility.NEVER, frozenset((b"user.fqrn", b"user.pid")), frozenset((7,)))
        assert make_xattr_rules(machine.load()) == expected


class TestStored:
    def test_ignore_the_page(self, world: World) -> None:
        for page in ("", "~0", "~7", "@3", "~?", "@?"):
            assert world.get(b"/file", f"user.plain{page}") == "value"
        for page in ("~", "@", "~x", "@-1"):
            assert world.get(b"/file", f"user.plain{page}") == "ENODATA"

    def test_may_have_a_separator_in_their_name(self, world: World) -> None:
        assert world.get(b"/file", "user.a~b") == "tilde"
        assert world.get(b"/file", "user.a") == "ENODATA"

    def test_are_hidden_by_magic_ones_of_the_same_name(self, world: World) -> None:
        assert world.get(b"/file", "user.hash") == str(file_hash(world, b"/file"))
        assert world.get(b"/directory", "user.hash") == "ENODATA"
        assert world.get(b"/file", "user.fqrn~0") == "test.example.org"
        assert world.names(b"/file") == ["user.a~b", "user.hash", "user.plain"]
        assert world.names(b"/directory") == ["user.a~b", "user.plain"]
