"""The fixture repository through the channel, by kernels that offer less: the same is seen, and what that costs.

The kernel of this machine plays the older ones. What it cannot show: defects that an old kernel has and this one has
not; what an old kernel does although nobody has agreed to it, or asks that this one never asks (sizes of listings and
of what it reads ahead are those of this kernel); and that an old kernel really offers what its version says.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from cvmfs_py.fuse.wire import InitFlag
from cvmfs_py.fuse.wire_init import WANTED_FLAGS
from tests.compat.zoo_goldens import Golden, make_document_root
from tests.mount.masked import (
    LINUX_5_4,
    LINUX_5_10,
    LINUX_5_15,
    LINUX_6_1,
    LINUX_6_6,
    LINUX_6_12,
    NEWEST,
    Masked,
    Profile,
    without,
)
from tests.mount.observing import differences, observe
from tests.mount.test_goldens_mounted import METAINFO, make_client
from tests.simulator.web import Nginx

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.simulator.command import Client

pytestmark = [
    pytest.mark.needs("mounting"),
    pytest.mark.needs("nginx"),
]
KERNELS = (LINUX_5_4, LINUX_5_10, LINUX_5_15, LINUX_6_1, LINUX_6_6, LINUX_6_12, NEWEST)
LACKS = (
    without(InitFlag.DO_READDIRPLUS),
    without(InitFlag.NO_OPEN_SUPPORT),
    without(InitFlag.NO_OPENDIR_SUPPORT),
    without(InitFlag.PARALLEL_DIROPS),
    without(InitFlag.CACHE_SYMLINKS),
    without(InitFlag.MAX_PAGES),
    without(InitFlag.ASYNC_READ),
    without(InitFlag.EXPLICIT_INVAL_DATA),
    without(InitFlag.INIT_EXT),
    Profile("with READDIRPLUS_AUTO", flags=WANTED_FLAGS | InitFlag.READDIRPLUS_AUTO),
    Profile("nothing", LINUX_5_4.minor, InitFlag(0)),
)
LARGE = "chunked/zeros-2M"
TRIES = 5
MANY = "dirs/many/"
MOST = 50  # of a directory: no other one has more


@pytest.fixture(scope="module")
def golden() -> Golden:
    """Without nearly all of the three thousand files that differ in their names only."""
    golden = Golden("head-r7")
    for path in sorted(path for path in golden.records if path.startswith(MANY))[MOST:]:
        del golden.records[path]
    return golden


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """One cache for all: what is fetched does not depend on the kernel."""
    directory = tmp_path_factory.mktemp("negotiation")
    with Nginx(make_document_root(directory / "www")) as web:
        yield make_client(directory / "client", web)


def walk(top: Path | str, most: int | None = None) -> None:
    """Lists everything, and asks for the attributes, targets and contents of all, or so many of each directory."""
    for name in sorted(os.listdir(top))[:most]:
        path = os.path.join(top, name)
        mode = os.lstat(path).st_mode
        if stat.S_ISDIR(mode):
            walk(path, most)
        elif stat.S_ISLNK(mode):
            os.readlink(path)
        elif stat.S_ISREG(mode):
            fd = os.open(path, os.O_RDONLY)
            while os.read(fd, 1 << 20):
                pass
            os.close(fd)


def cost_of_a_walk(mounted: Masked, top: Path, expected: Counter[str]) -> Counter[str]:
    """The requests of a walk over what is known. Once more, when the kernel may have had to forget something."""
    for _ in range(TRIES):
        before = mounted.counts()
        walk(top, MOST)
        cost = mounted.counts() - before
        if cost == expected:
            break
    return cost


@pytest.mark.parametrize("profile", [*KERNELS, *LACKS], ids=str)
def test_less_costs_more_and_shows_the_same(tmp_path: Path, client: Client, golden: Golden, profile: Profile) -> None:
    records = golden.records.values()
    entries = len(golden.records) - 1
    directories = sum(stat.S_ISDIR(record["mode"]) for record in records)
    files = sum("sha256" in record for record in records)
    links = sum("target" in record for record in records)
    lacks = WANTED_FLAGS & ~profile.flags
    mounted = Masked(client, tmp_path / "mnt", profile)
    with mounted as top:
        told = mounted.told()
        flags = profile.flags & told["offered"]
        if InitFlag.INIT_EXT in lacks:
            flags &= (1 << 32) - 1
        assert (told["minor"], told["flags"]) == (min(profile.minor, told["kernel"]), flags)
        before = mounted.counts()
        with open(top / LARGE, "rb", buffering=0) as large:
            while large.read(1 << 20):
                pass
        cost = mounted.counts() - before
        # Without MAX_PAGES a read has 32 pages.
        assert cost["read"] <= 4 if InitFlag.MAX_PAGES not in lacks else cost["read"] >= 16, cost

        before = mounted.counts()
        assert differences(observe(top, golden, MOST), golden, METAINFO) == []
        assert len(os.listdir(top / MANY)) == 3000
        cost = mounted.counts() - before
        if InitFlag.DO_READDIRPLUS in lacks:
            assert cost["readdir"] >= directories
            assert (cost["readdirplus"], cost["lookup"] > entries - 10) == (0, True), cost
        elif InitFlag.READDIRPLUS_AUTO in profile.flags:
            assert cost["readdirplus"] >= directories
        else:
            assert cost["readdirplus"] >= directories
            assert (cost["readdir"], cost["lookup"]) == (0, 0), cost
        assert cost["opendir"] == cost["releasedir"] + (0 if InitFlag.NO_OPENDIR_SUPPORT in lacks else 1)
        assert cost["flush"] <= 1

        # What is agreed on leaves nothing to be asked; what is not, is asked for every time.
        expected: Counter[str] = Counter()
        if InitFlag.NO_OPEN_SUPPORT in lacks:
            expected.update(open=files, release=files)
        if InitFlag.NO_OPENDIR_SUPPORT in lacks:
            expected.update(opendir=directories, releasedir=directories)
        if InitFlag.CACHE_SYMLINKS in lacks:
            expected.update(readlink=links)
        assert cost_of_a_walk(mounted, top, expected) == expected
        if profile in KERNELS:
            assert differences(observe(top, golden, MOST), golden, METAINFO) == []
        assert mounted.end() == 0
    assert mounted.errors == ""
