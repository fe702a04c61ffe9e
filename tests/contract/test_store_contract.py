"""What every store does, whatever it is made of."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cache.address import Algorithm, Kind
from cache.directory import DirectoryStore
from cache.errors import CacheError, ObjectCorruptError
from cache.memory import MemoryStore
from cache.ref import NotLocal
from cache.reports import HeldPart, Verdict
from cache.store import Store
from cache.tiers import LowerTier
from tests.contract.objects import commit, content, make_ref, put

MakeStore = Callable[[int | None], Store]


def _tier(directory: Path, own: bool) -> LowerTier:
    """A lower tier with other objects in it."""
    if own:
        with DirectoryStore(str(directory)) as store:
            put(store, b"something else")
    else:
        (directory / "ab").mkdir(parents=True)
        (directory / ".cvmfscache").touch()
    return LowerTier(str(directory))


@pytest.fixture(
    params=["directory", "memory", "directory over own", "directory over reference", "memory over own"],
)
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeStore]:
    kind: str = request.param
    stores: list[Store] = []

    def make(limit_bytes: int | None = None) -> Store:
        lower = [_tier(tmp_path / "lower", kind.endswith("own"))] if "over" in kind else []
        if kind.startswith("directory"):
            stores.append(DirectoryStore(str(tmp_path / "cache"), limit_bytes, lower))
        else:
            stores.append(MemoryStore(limit_bytes, lower))
        return stores[-1]

    yield make
    for store in stores:
        store.close()


@pytest.fixture
def store(make_store: MakeStore) -> Store:
    return make_store(None)


def block(number: int, size_bytes: int = 100) -> bytes:
    return (b"%d " % number * size_bytes)[:size_bytes]


def test_what_is_not_there_is_named(store: Store) -> None:
    ref = make_ref(b"absent")
    assert not store.has(ref)
    with pytest.raises(NotLocal) as caught:
        store.open(ref)
    assert caught.value.refs == (ref,)


def test_a_committed_object_can_be_read(store: Store) -> None:
    data = os.urandom(300_000)
    ref = make_ref(data)
    with commit(store, ref, data) as pin:
        assert pin.read() == data
        assert pin.size_bytes == len(data)
        assert pin.content_hash == ref.content_hash
    assert store.has(ref)
    with store.open(ref) as pin:
        assert pin.read(10, 5) == data[5:15]
        assert pin.read(100, len(data) - 3) == data[-3:]
        assert pin.read(100, len(data) + 3) == b""
        assert pin.read(0, 0) == b""
        assert pin.read(offset=7) == data[7:]
        assert os.pread(pin.fd, 4, 0) == data[:4]


def test_a_pin_with_a_path_can_be_opened_by_name(store: Store) -> None:
    with commit(store, make_ref(b"by name"), b"by name") as pin:
        if pin.path is not None:
            assert Path(pin.path).read_bytes() == b"by name"


def test_a_pin_cannot_be_written_through(store: Store) -> None:
    with (
        commit(store, make_ref(b"constant"), b"constant") as pin,
        pytest.raises(OSError, match=r"descriptor|permitted"),
    ):
        os.write(pin.fd, b"x")
    with store.open(make_ref(b"constant")) as pin, pytest.raises(OSError, match=r"descriptor|permitted"):
        os.pwrite(pin.fd, b"x", 0)


def test_a_closed_pin_is_closed(store: Store) -> None:
    pin = commit(store, make_ref(b"x"), b"x")
    pin.close()
    pin.close()
    with pytest.raises(ValueError, match="closed"):
        pin.read()


def test_the_empty_object_is_an_object(store: Store) -> None:
    ref = make_ref(b"")
    with store.begin(ref) as transaction:
        transaction.commit().close()
    assert content(store, ref) == b""
    assert store.status().objects == 1


def test_content_may_come_in_pieces_of_any_type(store: Store) -> None:
    ref = make_ref(b"one two three")
    with store.begin(ref) as transaction:
        transaction.write(b"one ")
        transaction.write(bytearray(b"two "))
        transaction.write(b"")
        transaction.write(memoryview(b"_three_")[1:-1])
        assert transaction.written_bytes == 13
        assert not store.has(ref)
        transaction.commit().close()
    assert content(store, ref) == b"one two three"


def test_writing_may_happen_in_a_worker_thread(store: Store) -> None:
    data = os.urandom(500_000)
    ref = make_ref(data)
    with store.begin(ref) as transaction:
        for start in range(0, len(data), 100_000):
            worker = threading.Thread(target=transaction.write, args=(data[start : start + 100_000],))
            worker.start()
            worker.join()
        transaction.commit().close()
    assert content(store, ref) == data


def test_an_aborted_transaction_leaves_nothing(store: Store) -> None:
    ref = make_ref(b"aborted")
    with store.begin(ref) as transaction:
        transaction.write(b"aborted")
    assert not store.has(ref)
    transaction.abort()
    with pytest.raises(ValueError, match="ended"):
        transaction.write(b"more")
    with pytest.raises(ValueError, match="ended"):
        transaction.commit()
    assert store.status().objects == 0


def test_an_exception_aborts(store: Store) -> None:
    ref = make_ref(b"interrupted")

    def write_and_fail() -> None:
        with store.begin(ref) as transaction:
            transaction.write(b"inter")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_and_fail()
    assert not store.has(ref)


def test_abort_after_commit_changes_nothing(store: Store) -> None:
    ref = make_ref(b"kept")
    transaction = store.begin(ref)
    transaction.write(b"kept")
    transaction.commit().close()
    transaction.abort()
    with pytest.raises(ValueError, match="ended"):
        transaction.commit()
    assert content(store, ref) == b"kept"


def test_an_object_of_wrong_size_is_not_stored(store: Store) -> None:
    ref = make_ref(b"long content", size_bytes=5)
    with store.begin(ref) as transaction:
        transaction.write(b"long content")
        with pytest.raises(ObjectCorruptError, match="12 bytes, but its catalog says 5"):
            transaction.commit()
    assert not store.has(ref)


def test_an_object_that_turns_out_to_have_the_wrong_size_is_absent(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    ref = put(store, b"right size")
    wrong = make_ref(b"right size", size_bytes=3)
    assert store.has(ref)
    assert not store.has(wrong)
    assert content(store, wrong) is None
    assert content(store, ref) is None  # discarded: nobody knows which of the two sizes was the lie
    assert "is fetched again" in caplog.text


def test_sizes_of_catalogs_are_informative(store: Store) -> None:
    ref = make_ref(b"catalog", Kind.CATALOG, size_bytes=1)
    commit(store, ref, b"catalog").close()
    assert store.has(ref)
    assert content(store, ref) == b"catalog"


def test_an_unknown_size_is_fine(store: Store) -> None:
    ref = make_ref(b"of any size", size_bytes=None)
    commit(store, ref, b"of any size").close()
    assert content(store, ref) == b"of any size"


@pytest.mark.parametrize("algorithm", [Algorithm.SHA1, Algorithm.RMD160, Algorithm.SHAKE128])
def test_all_algorithms(store: Store, algorithm: Algorithm) -> None:
    ref = make_ref(b"hashed", algorithm=algorithm)
    commit(store, ref, b"hashed").close()
    assert content(store, ref) == b"hashed"
    assert [entry.content_hash for entry in store.entries()] == [ref.content_hash]


def test_the_kind_is_not_part_of_the_address(store: Store) -> None:
    put(store, b"same bytes", Kind.BULK)
    assert content(store, make_ref(b"same bytes", Kind.CHUNK)) == b"same bytes"


def test_two_transactions_of_one_object(store: Store) -> None:
    ref = make_ref(b"twice")
    with store.begin(ref) as first, store.begin(ref) as second:
        first.write(b"twice")
        second.write(b"twice")
        with first.commit() as one, second.commit() as two:
            assert one.read() == two.read() == b"twice"
    status = store.status()
    assert (status.objects, status.used_bytes) == (1, 5)


def test_discard(store: Store) -> None:
    ref = put(store, b"discard me")
    with store.open(ref) as pin:
        assert store.discard(ref.content_hash)
        assert not store.has(ref)
        assert pin.read() == b"discard me"
    assert not store.discard(ref.content_hash)
    assert store.status().objects == 0
    put(store, b"discard me")
    assert content(store, ref) == b"discard me"


def test_room_is_known_at_every_moment(make_store: MakeStore) -> None:
    store = make_store(10_000)
    assert store.room() == (0, 10_000)
    for number in range(1, 4):
        put(store, block(number))
        assert store.room() == (100 * number, 10_000)
    store.flush()
    assert store.room() == (300, 10_000)
    store.cleanup(150)
    assert store.room() == (100, 10_000)


def test_status_and_entries(make_store: MakeStore) -> None:
    store = make_store(10_000)
    put(store, block(1), label="/first")
    put(store, block(2, 50), Kind.CATALOG, label="catalog of /")
    put(store, block(3, 20), volatile=True)
    with store.open(make_ref(block(1), label="/first")):
        status = store.status()
        entries = {entry.content_hash: entry for entry in store.entries()}
    assert (status.objects, status.catalogs, status.used_bytes) == (3, 1, 170)
    assert (status.limit_bytes, status.pinned_bytes, status.read_only) == (10_000, 100, False)
    assert len(status.lower_tiers) == len(store.lower)
    assert store.room() == (170, 10_000)
    first = entries[make_ref(block(1)).content_hash]
    assert (first.size_bytes, first.kind, first.volatile, first.label, first.pinned) == (
        100,
        Kind.BULK,
        False,
        "/first",
        True,
    )
    assert entries[make_ref(block(2, 50)).content_hash].kind is Kind.CATALOG
    assert entries[make_ref(block(3, 20)).content_hash].volatile


def test_labels_may_be_any_text(store: Store) -> None:
    put(store, b"strange", label="/a\udcff\n'\"%" + "x" * 10_000)
    (entry,) = store.entries()
    assert entry.label.startswith("/a?\n'\"%xxx")
    assert len(entry.label) <= 512


def test_entries_come_in_order_of_use(store: Store) -> None:
    refs = [put(store, block(number)) for number in range(5)]
    store.flush()
    for number in (3, 0, 3, 1):
        content(store, refs[number])
    expected = [refs[number].content_hash for number in (1, 3, 0, 4, 2)]
    entries = list(store.entries())
    assert [entry.content_hash for entry in entries] == expected
    assert [entry.last_use for entry in entries] == sorted((entry.last_use for entry in entries), reverse=True)


def test_cleanup_takes_the_least_recently_used(store: Store) -> None:
    refs = [put(store, block(number)) for number in range(10)]
    content(store, refs[0])
    content(store, refs[3])
    report = store.cleanup(450)
    assert (report.removed_objects, report.freed_bytes, report.remaining_bytes) == (6, 600, 400)
    assert {number for number in range(10) if store.has(refs[number])} == {0, 3, 8, 9}
    assert store.status().used_bytes == 400
    assert store.cleanup(450).removed_objects == 0


def test_cleanup_takes_volatile_objects_first(store: Store) -> None:
    volatile = [put(store, block(number), volatile=True) for number in range(3)]
    ordinary = [put(store, block(number)) for number in range(10, 13)]
    content(store, volatile[0])
    store.cleanup(400)
    assert [store.has(ref) for ref in volatile] == [True, False, False]
    assert all(store.has(ref) for ref in ordinary)


def test_what_is_open_stays(store: Store) -> None:
    refs = [put(store, block(number)) for number in range(5)]
    with store.open(refs[0]) as one, store.open(refs[0]) as two:
        one.close()
        report = store.cleanup(0)
        assert (report.removed_objects, report.remaining_bytes, report.spared_objects) == (4, 100, 1)
        assert store.has(refs[0])
        assert two.read() == block(0)
    store.cleanup(0)
    assert not store.has(refs[0])
    assert store.status().used_bytes == 0


def test_the_limit_is_kept(make_store: MakeStore) -> None:
    store = make_store(1000)
    refs = [put(store, block(number)) for number in range(11)]
    assert [store.has(ref) for ref in refs] == [False] * 6 + [True] * 5
    assert store.status().used_bytes == 500
    for number in range(11, 100):
        put(store, block(number))
        assert store.status().used_bytes <= 1000
    assert content(store, make_ref(block(99))) == block(99)


def test_pins_may_exceed_the_limit(make_store: MakeStore) -> None:
    store = make_store(1000)
    pins = [commit(store, make_ref(block(number)), block(number)) for number in range(30)]
    assert store.status().used_bytes == store.status().pinned_bytes == 3000
    assert [pin.read() for pin in pins] == [block(number) for number in range(30)]
    for pin in pins:
        pin.close()
    for number in range(30, 40):
        put(store, block(number))
    assert store.status().used_bytes <= 1000


def test_an_object_above_the_limit_is_stored_all_the_same(make_store: MakeStore) -> None:
    store = make_store(1000)
    small = put(store, block(1))
    with commit(store, make_ref(block(2, 5000)), block(2, 5000)) as pin:
        assert pin.read() == block(2, 5000)
        assert store.has(make_ref(block(2, 5000)))
    assert not store.has(small)


def test_room_is_made_before_a_large_object_of_known_size(make_store: MakeStore) -> None:
    mib = 2**20
    store = make_store(40 * mib)
    old = [put(store, bytes([number]) * mib) for number in range(20)]
    transaction = store.begin(make_ref(b"", size_bytes=30 * mib))
    assert store.status().used_bytes <= 10 * mib
    assert store.has(old[-1])
    transaction.abort()


def test_without_a_limit_nothing_is_evicted(store: Store) -> None:
    refs = [put(store, block(number, 1000)) for number in range(600)]
    assert all(store.has(ref) for ref in refs)
    assert store.status().limit_bytes is None


def test_named_pins_stay(store: Store) -> None:
    refs = [put(store, block(number)) for number in range(4)]
    absent = make_ref(b"not here yet")
    store.pin("example.org@v1", 'version 1, with "quotes"\nand lines', [refs[1].content_hash, absent.content_hash])
    store.pin("other", "", [refs[2].content_hash])
    assert store.status().pinned_bytes == 200
    assert {entry.content_hash for entry in store.entries() if entry.pinned} == {
        refs[1].content_hash,
        refs[2].content_hash,
    }
    assert store.cleanup(0).spared_objects == 2
    assert [store.has(ref) for ref in refs] == [False, True, True, False]
    first, second = store.named_pins()
    assert (first.name, first.label) == ("example.org@v1", 'version 1, with "quotes"\nand lines')
    assert first.hashes == {str(refs[1].content_hash), str(absent.content_hash)}
    assert second.name == "other"
    assert store.held(first.hashes) == HeldPart(1, 100)
    assert store.unpin("other")
    assert not store.unpin("other")
    store.pin("example.org@v1", "replaced", [])
    store.cleanup(0)
    assert store.status().objects == 0


def test_named_pins_say_what_they_are(store: Store) -> None:
    ref = put(store, block(1))
    absent = make_ref(b"not here yet")
    hashes = [ref.content_hash, absent.content_hash]
    store.pin("one", "", hashes, is_complete=False, size_bytes=112)
    (pin,) = store.named_pins()
    assert (pin.is_complete, pin.size_bytes, store.held(pin.hashes).objects) == (False, 112, 1)
    put(store, b"not here yet")
    store.pin("one", "", hashes, size_bytes=112)
    (pin,) = store.named_pins()
    assert (pin.is_complete, store.held(pin.hashes)) == (True, HeldPart(2, 112))


def test_named_pins_hold_against_the_limit(make_store: MakeStore) -> None:
    store = make_store(1000)
    kept = [put(store, block(number)) for number in range(3)]
    store.pin("kept", "", [ref.content_hash for ref in kept])
    for number in range(10, 60):
        put(store, block(number))
    assert all(store.has(ref) for ref in kept)
    assert store.status().used_bytes <= 1000


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../x", ".hidden", "a\0b", "x" * 300, "a b"])
def test_bad_names_are_refused(store: Store, name: str) -> None:
    with pytest.raises(CacheError, match="cannot be used as a name"):
        store.pin(name, "", [])
    with pytest.raises(CacheError, match="cannot be used as a name"):
        store.unpin(name)
    with pytest.raises(CacheError, match="cannot be used as a name"):
        store.write_state(name, b"x")
    with pytest.raises(CacheError, match="cannot be used as a name"):
        store.read_state(name)


def test_state(store: Store) -> None:
    name = "cvmfschecksum.example.org"
    assert store.read_state(name) is None
    store.write_state(name, b"first")
    assert store.read_state(name) == b"first"
    store.write_state(name, b"second\0and longer")
    assert store.read_state(name) == b"second\0and longer"
    assert store.read_state("other") is None
    store.write_state(name, b"")
    assert store.read_state(name) is None
    store.write_state(name, b"")


def test_a_check_finds_everything_in_order(store: Store) -> None:
    refs = {put(store, block(number, 5000)).content_hash for number in range(20)} | {put(store, b"").content_hash}
    results = [result for result in store.check() if not any(result.where.startswith(t.directory) for t in store.lower)]
    assert {result.content_hash for result in results} == refs
    assert {result.verdict for result in results} == {Verdict.OK}
    assert not any(result.removed for result in results)


def test_pins_survive_their_store(make_store: MakeStore) -> None:
    with make_store(None) as store:
        pin = commit(store, make_ref(b"survivor"), b"survivor")
    store.close()
    assert pin.read() == b"survivor"
    pin.close()
