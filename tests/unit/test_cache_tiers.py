"""Lower tiers: directories of this program and of the reference client, read in place."""

from __future__ import annotations

import contextlib
import os
import zlib
from pathlib import Path

import pytest

from cache.address import ContentHash, Kind, parse_hash
from cache.directory import DirectoryStore
from cache.errors import CacheError
from cache.memory import MemoryStore
from cache.ref import ObjectRef
from cache.reports import Verdict
from cache.tiers import LowerTier
from tests.contract.objects import content, make_ref, object_file, put

ZOO = Path(__file__).parent.parent / "data" / "zoo" / "server" / "data"


def preload(directory: Path, ref: ObjectRef, data: bytes) -> Path:
    """Put an object where the reference client has it."""
    text = str(ref.content_hash)
    path = directory / text[:2] / text[2:]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    """A directory as the preloader leaves it."""
    directory = tmp_path / "preloaded"
    for name in ("quarantaine", "txn", *(f"{number:02x}" for number in range(256))):
        (directory / name).mkdir(parents=True)
    (directory / "cvmfschecksum.example.org").write_bytes(b"ab" * 20 + b"T1445428515R2")
    return directory


def zoo_objects() -> list[tuple[ContentHash, bytes]]:
    """Real objects, inflated as a client stores them; those that are stored as they are, too."""
    found = []
    for path in sorted(ZOO.rglob("*")):
        content_hash = parse_hash((path.parent.name + path.name).rstrip("PCXHM")) if path.is_file() else None
        if content_hash is not None:
            data = path.read_bytes()
            with contextlib.suppress(zlib.error):
                data = zlib.decompress(data)
            found.append((content_hash, data))
    return found


def test_an_object_is_used_in_place(tmp_path: Path, reference: Path) -> None:
    ref = make_ref(b"preloaded")
    path = preload(reference, ref, b"preloaded")
    with DirectoryStore(str(tmp_path / "cache"), lower=[LowerTier(str(reference))]) as store:
        assert store.has(ref)
        with store.open(ref) as pin:
            assert pin.read() == b"preloaded"
            assert pin.path == str(path)
        assert store.status().objects == 0
        assert store.status().lower_tiers == (str(reference),)


def test_names_with_algorithm_suffix_and_without_kind(reference: Path) -> None:
    tier = LowerTier(str(reference))
    for kind, text in (
        (Kind.CATALOG, "12" * 20),
        (Kind.CHUNK, "34" * 20 + "-rmd160"),
        (Kind.BULK, "56" * 20 + "-shake128"),
    ):
        content_hash = parse_hash(text)
        assert content_hash is not None
        (reference / text[:2] / text[2:]).write_bytes(b"found")
        pin = tier.open(ObjectRef(content_hash, kind))
        assert pin is not None
        with pin:
            assert pin.read() == b"found"


def test_a_wrong_size_is_no_hit(tmp_path: Path, reference: Path, caplog: pytest.LogCaptureFixture) -> None:
    ref = make_ref(b"preloaded")
    path = preload(reference, ref, b"preload")
    catalog = make_ref(b"catalog", Kind.CATALOG, size_bytes=1)
    preload(reference, catalog, b"catalog")
    with DirectoryStore(str(tmp_path / "cache"), lower=[LowerTier(str(reference))]) as store:
        assert not store.has(ref)
        assert content(store, ref) is None
        assert "has 7 bytes instead of 9" in caplog.text
        assert content(store, catalog) == b"catalog"
        put(store, b"preloaded")
        assert content(store, ref) == b"preloaded"
    assert path.read_bytes() == b"preload"


def test_a_directory_in_place_of_an_object_is_no_hit(reference: Path, caplog: pytest.LogCaptureFixture) -> None:
    ref = make_ref(b"x", size_bytes=None)
    text = str(ref.content_hash)
    (reference / text[:2] / text[2:]).mkdir()
    assert LowerTier(str(reference)).open(ref) is None
    assert "is no regular file" in caplog.text


def test_a_discarded_object_of_a_tier_is_not_used_again(tmp_path: Path, reference: Path) -> None:
    ref = make_ref(b"preloaded")
    path = preload(reference, ref, b"prEloaded")
    with DirectoryStore(str(tmp_path / "cache"), lower=[LowerTier(str(reference))]) as store:
        assert content(store, ref) == b"prEloaded"  # nothing shows it yet
        assert store.discard(ref.content_hash)
        assert not store.has(ref)
        assert content(store, ref) is None
        assert not store.discard(ref.content_hash)
        put(store, b"preloaded")
        assert content(store, ref) == b"preloaded"
    assert path.exists()


def test_tiers_are_asked_in_order_after_the_own_store(tmp_path: Path) -> None:
    for name in ("one", "two"):
        with DirectoryStore(str(tmp_path / name)) as lower:
            put(lower, b"both")
            put(lower, name.encode())
    tiers = [LowerTier(str(tmp_path / name)) for name in ("one", "two")]
    with MemoryStore(lower=tiers) as store:
        with store.open(make_ref(b"both")) as pin:
            assert pin.path is not None
            assert pin.path.startswith(str(tmp_path / "one"))
        assert content(store, make_ref(b"two")) == b"two"
        put(store, b"both")
        with store.open(make_ref(b"both")) as pin:
            assert pin.path is None


def test_seals_of_an_own_directory_are_checked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with DirectoryStore(str(tmp_path / "lower")) as lower:
        ref = put(lower, b"sealed content")
        lower.write_state("cvmfschecksum.example.org", b"crumb")
    tier = LowerTier(str(tmp_path / "lower"))
    assert tier.has(ref)
    assert tier.read_breadcrumb_bytes("example.org") == b"crumb"
    Path(object_file(str(tmp_path / "lower"), ref)).write_bytes(b"SEALED CONTENT")
    assert not tier.has(ref)
    assert tier.open(ref) is None
    assert "was changed after it was stored" in caplog.text
    assert os.path.exists(object_file(str(tmp_path / "lower"), ref))


def test_the_breadcrumb(reference: Path) -> None:
    tier = LowerTier(str(reference))
    assert tier.read_breadcrumb_bytes("example.org") == b"ab" * 20 + b"T1445428515R2"
    assert tier.read_breadcrumb_bytes("other.org") is None
    (reference / "cvmfschecksum.long.org").write_bytes(b"x" * 10_000)
    assert tier.read_breadcrumb_bytes("long.org") == b"x" * 164


@pytest.mark.parametrize("kind", ["absent", "file", "empty", "foreign"])
def test_other_directories_are_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / kind
    if kind == "file":
        path.touch()
    elif kind != "absent":
        path.mkdir()
        if kind == "foreign":
            (path / "thesis.tex").touch()
    with pytest.raises(CacheError, match=str(path)):
        LowerTier(str(path))


def test_real_objects_are_verified_by_recompression(tmp_path: Path, reference: Path) -> None:
    objects = zoo_objects()
    assert len(objects) > 50
    for content_hash, data in objects:
        preload(reference, ObjectRef(content_hash), data)
    with DirectoryStore(str(tmp_path / "cache"), lower=[LowerTier(str(reference))]) as store:
        results = list(store.check())
    assert {result.content_hash for result in results} == {content_hash for content_hash, _ in objects}
    assert [result for result in results if result.verdict is not Verdict.OK] == []


def test_changed_objects_of_a_tier_cannot_be_verified_and_stay(tmp_path: Path, reference: Path) -> None:
    path = preload(reference, make_ref(b"original"), b"changed!")
    (reference / "ab" / "README").touch()
    with MemoryStore(lower=[LowerTier(str(reference))]) as store:
        verdicts = {result.where: result.verdict for result in store.check()}
    assert verdicts == {str(path): Verdict.UNVERIFIABLE, str(reference / "ab" / "README"): Verdict.FOREIGN}
    assert path.exists()
