"""What cannot be published under some names is left out with a warning, or refused: as every server's check says."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from cvmfs_py.errors import PublishError
from cvmfs_py.publish.reserved import unpublishable
from tests.unit.publish_sources import Published, put
from tests.unit.tar_archives import archive_of, directory, entry, hard_link, symlink

if TYPE_CHECKING:
    from pathlib import Path

FALSE_MARKERS = {b"/dir/.cvmfscatalog", b"/fifo/.cvmfscatalog", b"/link/.cvmfscatalog"}


@pytest.fixture
def published(tmp_path: Path) -> Published:
    return Published(tmp_path)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    made = tmp_path / "source"
    put(made, "file/.cvmfscatalog", b"")
    put(made, "dir/.cvmfscatalog/inside", b"x")
    for name in ("fifo", "link"):
        (made / name).mkdir()
    os.mkfifo(made / "fifo/.cvmfscatalog")
    (made / "link/.cvmfscatalog").symlink_to("x")
    return made


def test_what_only_looks_like_a_marker_is_left_out(published: Published, source: Path) -> None:
    published.take(source)
    assert set(published.see()) == {b"", b"/dir", b"/fifo", b"/file", b"/file/.cvmfscatalog", b"/link"}
    assert set(published.catalogs()) == {b"", b"/file"}
    assert {path for path, _ in published.warnings} == FALSE_MARKERS


def test_a_marker_that_becomes_something_else_goes(published: Published, source: Path) -> None:
    published.take(source)
    (source / "file/.cvmfscatalog").unlink()
    (source / "file/.cvmfscatalog").symlink_to("x")
    published.take(source)
    assert b"/file/.cvmfscatalog" not in published.see()
    assert set(published.catalogs()) == {b""}


def test_an_archive_is_treated_so_too(published: Published) -> None:
    published.unpack(
        archive_of(
            entry("file/.cvmfscatalog", b""),
            entry("dir/.cvmfscatalog/inside", b"x"),
            directory("dir/.cvmfscatalog"),
            symlink("link/.cvmfscatalog", "x"),
            symlink("other", "x"),
            hard_link("hard/.cvmfscatalog", "other"),
            hard_link("same/.cvmfscatalog", "file/.cvmfscatalog"),
        )
    )
    tree = {path for path in published.see() if path.endswith(b"/.cvmfscatalog")}
    assert tree == {b"/file/.cvmfscatalog", b"/same/.cvmfscatalog"}
    assert set(published.catalogs()) == {b"", b"/file", b"/same"}
    assert {path for path, _ in published.warnings} >= {b"/link/.cvmfscatalog", b"/hard/.cvmfscatalog"}


def test_a_symlink_leads_to_no_reserved_name(published: Published) -> None:
    for target in (".cvmfs", "a/.cvmfscatalog"):
        with pytest.raises(PublishError, match="nothing can be published at"):
            published.unpack(archive_of(symlink("link", target), entry("link/file", b"x")))


@pytest.mark.parametrize("at", [b"/.cvmfs", b"/.cvmfs/snapshots", b"/a/.cvmfscatalog", b"/.cvmfscatalog/b"])
def test_nothing_goes_there(published: Published, source: Path, at: bytes) -> None:
    with pytest.raises(PublishError, match="nothing can be published at"):
        published.take(source, at)
    with pytest.raises(PublishError, match="nothing can be published at"):
        published.unpack(archive_of(entry("file", b"x")), at)


def test_other_names_are_free() -> None:
    for path in (b"/.cvmfsx", b"/a/.cvmfs", b"/a/.cvmfscatalogs/b", b"/.cvmfsautocatalog"):
        assert unpublishable(path, 0o040000) is None
