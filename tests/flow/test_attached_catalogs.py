"""A walk keeps few catalogs attached, because each has its own pages in memory, which no allocation tracer sees."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cvmfs_py.mount.roots import ATTACHED_CATALOGS
from tests.flow.opening import opened
from tests.simulator.repository import Repository as Published
from tests.simulator.tree import Directory, File

if TYPE_CHECKING:
    from pathlib import Path

CATALOGS = 2 * ATTACHED_CATALOGS


async def test_a_walk_lets_go_of_the_catalogs_it_has_left(tmp_path: Path) -> None:
    published = Published.create(tmp_path / "repository")
    published.publish(Directory({f"n{number:03}": Directory({"f": File()}, nested=True) for number in range(CATALOGS)}))
    async with opened(published, tmp_path / "cache") as repository:
        most = 0
        walked = []
        async for path in repository.walk(b""):
            walked += [located.path async for located in repository.listing(path)]
            most = max(most, repository.tree.attached_count)
        assert most == ATTACHED_CATALOGS
        assert len(walked) == CATALOGS * 3  # the mountpoint, its marker and the file
        # What was let go of is attached again where it is wanted.
        assert (await repository.resolve(b"/n000/f")).entry.is_regular
