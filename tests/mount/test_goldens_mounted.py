"""The fixture repository through a mount equals what the reference client showed of it, online and offline."""

from __future__ import annotations

import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.compat.test_variants import VARIANTS, make
from tests.compat.test_variants import make_client as make_variant_client
from tests.compat.whole_tree import describe
from tests.compat.zoo_goldens import FQRN, GOLDENS, KEY, ROOT_HASHES, ZOO, Golden, make_document_root
from tests.mount.mounting import Mounted, every_engine
from tests.mount.observing import differences, observe
from tests.simulator.command import Client
from tests.simulator.publisher import seen_on_disk
from tests.simulator.schema import NEWEST
from tests.simulator.web import Nginx

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.needs("mounting"),
    pytest.mark.needs("nginx"),
]
METAINFO_HASH = "85e4f386da0d5d77c7f66cf2f58e10951f24b653"  # as the newest manifest has it
METAINFO = zlib.decompress(
    (ZOO / "server" / "data" / METAINFO_HASH[:2] / f"{METAINFO_HASH[2:]}M").read_bytes()
).decode()
MOUNTED_VARIANTS = (
    "ripemd-160",
    "shake-128",
    "zstd",
    "uncompressed",
    "volatile",
    "mixed algorithms",
    "chunk lists",
    "odd names",
    "mixed schemas",
    "schema 1.0",
)


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Nginx]:
    with Nginx(make_document_root(tmp_path / "www")) as server:
        yield server


def make_client(directory: Path, web: Nginx) -> Client:
    client = Client(directory, FQRN, [web.url], KEY, EXTERNAL_URL=web.url, CLAIM_OWNERSHIP="no")
    client.environment["ZOO_SET"] = "zoo-value"
    return client


@every_engine
@pytest.mark.parametrize("name", GOLDENS)
def test_everything_is_as_the_reference_client_shows_it(tmp_path: Path, web: Nginx, name: str, engine: str) -> None:
    client = make_client(tmp_path / "client", web)
    golden = Golden(name)
    pin = () if name == "head-r7" else ("--tag", name)
    mounted = Mounted(client, tmp_path / "mnt", *pin, engine=engine)
    with mounted as top:
        assert differences(observe(top, golden), golden, METAINFO) == []
        if name == "head-r7":  # mostly from what the kernel keeps
            assert differences(observe(top, golden), golden, METAINFO) == []
        assert mounted.end() == 0
    assert mounted.errors == ""
    if engine != "channel" and name != "head-r7":
        return  # what is read from the cache does not depend on who speaks with the kernel
    web.kill()
    mounted = Mounted(client, tmp_path / "mnt", *pin, engine=engine)
    with mounted as top:
        assert differences(observe(top, golden), golden, METAINFO) == []
        assert mounted.end() == 0
    (warning,) = mounted.errors.splitlines()
    assert "using revision 7 of zoo.test.org" in warning


@every_engine
def test_pins_side_by_side_from_one_cache(tmp_path: Path, web: Nginx, engine: str) -> None:
    client = make_client(tmp_path / "client", web)
    pins = {
        "v1": ("--root-hash", ROOT_HASHES["v1"]),
        "v2": ("--root-hash", ROOT_HASHES["v2"]),
        "v3-plain": ("--tag", "v3-plain"),
    }
    with ExitStack() as mounts, ThreadPoolExecutor() as threads:
        tops = {
            name: mounts.enter_context(Mounted(client, tmp_path / name, *pin, engine=engine))
            for name, pin in pins.items()
        }
        seen = threads.map(lambda name: observe(tops[name], Golden(name)), pins)  # all fill the cache at once
        for name, observed in zip(pins, seen, strict=True):
            is_tagged = pins[name][0] == "--tag"
            golden = Golden(name) if is_tagged else without_tag(Golden(name))
            assert differences(observed, golden, METAINFO if is_tagged else "metainfo not available") == []
    web.kill()
    asked = [line.split(" ")[2] for line in web.log]
    assert asked.count(f"/cvmfs/{FQRN}/.cvmfspublished") == 1  # for the tag; a root hash vouches for itself


def without_tag(golden: Golden) -> Golden:
    """As seen by whoever knows a hash only."""
    for record in golden.records.values():
        for told in (record["xattrs"], record.get("asked", {})):
            if not told.get("user.tag", "!").startswith("!"):
                told["user.tag"] = ""
    return golden


@every_engine
@pytest.mark.parametrize("name", MOUNTED_VARIANTS)
def test_repositories_of_other_kinds(name: str, engine: str, tmp_path: Path) -> None:
    variant = VARIANTS[name]
    repository = make(tmp_path, variant)
    tree = variant.tree()
    repository.publish(tree)
    with Nginx(repository.document_root) as web:
        client = make_variant_client(tmp_path, repository, web.url, CLAIM_OWNERSHIP="no", HIDE_MAGIC_XATTRS="yes")
        mounted = Mounted(client, tmp_path / "mnt", engine=engine)
        with mounted as top:
            assert seen_on_disk(top) == describe(tree, variant.options.get("schema", NEWEST))
            assert mounted.end() == 0
        assert mounted.errors == ""
