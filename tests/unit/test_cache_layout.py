"""Which directories are used as a cache, and which are refused."""

from __future__ import annotations

import json
import os
import stat
from typing import TYPE_CHECKING

import pytest

from cache.directory import DirectoryStore
from cache.errors import CacheError
from cache.layout import MARKER, DirectoryKind, recognise
from tests.contract.objects import content, make_ref, put

if TYPE_CHECKING:
    from pathlib import Path


def test_a_new_directory_is_made_with_its_parents(tmp_path: Path) -> None:
    directory = tmp_path / "a" / "b" / "cache"
    with DirectoryStore(str(directory)) as store:
        put(store, b"x")
    assert recognise(str(directory)) is DirectoryKind.OWN
    assert json.loads((directory / MARKER).read_text())["version"] == 1


def test_only_the_user_can_read_it(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        with DirectoryStore(str(tmp_path / "cache")) as store:
            put(store, b"private")
            store.pin("name", "", [])
            store.write_state("state", b"x")
    finally:
        os.umask(old)
    for path in [tmp_path / "cache", *(tmp_path / "cache").rglob("*")]:
        mode = stat.S_IMODE(path.stat().st_mode)
        if path.name.startswith("index.sqlite-"):
            continue  # SQLite gives its journal the mode of the database
        assert mode == (0o700 if path.is_dir() else 0o600), path


def test_it_can_be_opened_again(tmp_path: Path) -> None:
    with DirectoryStore(str(tmp_path / "cache")) as store:
        ref = put(store, b"persistent")
        store.write_state("crumb", b"x")
    with DirectoryStore(str(tmp_path / "cache")) as store:
        assert content(store, ref) == b"persistent"
        assert store.read_state("crumb") == b"x"


def test_a_relative_path_is_bound_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with DirectoryStore("cache") as store:
        monkeypatch.chdir("/")
        ref = put(store, b"x")
        assert content(store, ref) == b"x"
    assert (tmp_path / "cache" / MARKER).exists()


@pytest.mark.parametrize("names", [[], ["lost+found"], [".nfs000000000001"], [".cvmfs-py-cache.12-abcd"]])
def test_a_directory_with_nothing_in_it_is_used(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).touch()
    with DirectoryStore(str(tmp_path)) as store:
        ref = put(store, b"x")
        assert content(store, ref) == b"x"


def refusal(directory: Path) -> str:
    before = sorted(directory.rglob("*")) if directory.is_dir() else None
    with pytest.raises(CacheError) as caught:
        DirectoryStore(str(directory))
    after = sorted(directory.rglob("*")) if directory.is_dir() else None
    assert before == after
    message = str(caught.value)
    assert str(directory) in message
    assert "\n" not in message
    return message


def test_a_foreign_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    assert "choose an empty or a new directory" in refusal(tmp_path)


@pytest.mark.parametrize("names", [[".cvmfscache"], [f"{number:02x}" for number in range(256)]])
def test_a_cache_of_the_reference_client_is_refused(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).mkdir()
    assert "lower tier" in refusal(tmp_path)


def test_another_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / MARKER).write_text('{"layout": "cvmfs-py cache", "version": 7}')
    assert "layout 7" in refusal(tmp_path)


@pytest.mark.parametrize("data", [b"", b"\xff\xfe", b"[]", b"{}", b"null", b"12"])
def test_a_damaged_marker_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / MARKER).write_bytes(data)
    assert "damaged" in refusal(tmp_path)


def test_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "Not a directory" in refusal(tmp_path / "file")
    assert "Not a directory" in refusal(tmp_path / "file" / "below")


def test_a_link_to_a_directory_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with DirectoryStore(str(tmp_path / "link")) as store:
        ref = put(store, b"x")
    with DirectoryStore(str(tmp_path / "real")) as store:
        assert content(store, ref) == b"x"


def test_opening_makes_and_reads_no_index(tmp_path: Path) -> None:
    with DirectoryStore(str(tmp_path / "cache")) as store:
        assert content(store, make_ref(b"absent")) is None
    assert not (tmp_path / "cache" / "index.sqlite").exists()


def test_what_is_left_of_a_cache_becomes_one_again(tmp_path: Path) -> None:
    """Somebody removed it while it was used, so that a part was made again, without the marker."""
    with DirectoryStore(str(tmp_path)) as store:
        ref = put(store, b"x")
        store.status()
    (tmp_path / MARKER).unlink()
    (tmp_path / "pins").rmdir()
    assert recognise(str(tmp_path)) is DirectoryKind.EMPTY
    with DirectoryStore(str(tmp_path)) as store:
        assert content(store, ref) == b"x"
        put(store, b"y")
    assert recognise(str(tmp_path)) is DirectoryKind.OWN


@pytest.mark.parametrize("names", [["lock"], ["txn"], ["objects", "state"], ["lock", "txn", "notes.txt"]])
def test_what_only_looks_a_bit_like_it_does_not(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).mkdir()
    assert recognise(str(tmp_path)) is DirectoryKind.FOREIGN


@pytest.mark.parametrize("names", [["objects/ab"], ["objects/ab", "objects/00", "txn", "state"]])
def test_what_is_left_of_a_removed_cache_is_used_again(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).mkdir(parents=True)
    assert recognise(str(tmp_path)) is DirectoryKind.EMPTY
    (tmp_path / "objects" / "thesis").mkdir()
    assert recognise(str(tmp_path)) is DirectoryKind.FOREIGN
