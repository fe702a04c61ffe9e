"""Where files are cut: within the sizes, the same every time, and after a change the same again soon."""

from __future__ import annotations

import array
import hashlib
import random
import re
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfs_py.publish.chunking import ChunkSizes, cut_of, needed_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

SIZES = ChunkSizes(16 << 10, 32 << 10, 64 << 10)
TOTAL = 3 << 20
EXPECTED = TOTAL // SIZES.average_bytes
WORDS = re.findall(
    r"\w+", "alpha beta gamma delta of the and in to that is was for on are with as his they at be this from"
)

GOLDEN = [
    0, 18031, 39965, 76979, 109085, 146452, 183331, 200716, 231979, 271839, 291245, 314701,
    332822, 362121, 404314, 440995, 472892, 495097, 516726, 542035, 585749, 640000,
]  # fmt: skip


def some_random() -> random.Random:
    return random.Random(20240229)


def text() -> bytes:
    chance = some_random()
    return " ".join(chance.choices(WORDS, k=TOTAL // 4)).encode()[:TOTAL]


def of_alphabet(letters: bytes) -> bytes:
    return bytes(some_random().choices(letters, k=TOTAL))


def numbers(code: str, value: Callable[[random.Random], float]) -> bytes:
    chance = some_random()
    item_bytes = array.array(code).itemsize
    return array.array(code, (value(chance) for _ in range(TOTAL // item_bytes))).tobytes()


DATA: dict[str, Callable[[], bytes]] = {
    "random": lambda: some_random().randbytes(TOTAL),
    "text": text,
    "wide text": lambda: text()[: TOTAL // 2].decode().encode("utf-16-le"),
    "genome": lambda: of_alphabet(b"ACGT"),
    "bits": lambda: of_alphabet(b"01"),
    "hexadecimal": lambda: some_random().randbytes(TOTAL // 2).hex().encode(),
    "floats": lambda: numbers("d", lambda chance: chance.gauss(0, 1)),
    "small integers": lambda: numbers("i", lambda chance: chance.randrange(1000)),
    "mostly zeros": lambda: b"".join(
        bytes(size) + b"%d" % size for size in some_random().choices(range(300), k=TOTAL // 150)
    )[:TOTAL],
}


def cuts(data: bytes, sizes: ChunkSizes = SIZES) -> list[int]:
    """All cuts, 0 and the end included; a chunk is shown no more than it needs."""
    found = [0]
    while found[-1] < len(data):
        start = found[-1]
        rest = len(data) - start
        found.append(start + cut_of(data[start : start + needed_bytes(rest, sizes)], rest, sizes))
    return found


def chunks(data: bytes, sizes: ChunkSizes = SIZES) -> list[bytes]:
    return [data[start:end] for start, end in pairwise(cuts(data, sizes))]


def assert_within(data: bytes, sizes: ChunkSizes) -> None:
    lengths = [len(chunk) for chunk in chunks(data, sizes)]
    assert sum(lengths) == len(data)
    assert all(0 < length <= sizes.max_bytes for length in lengths)
    assert all(length >= sizes.min_bytes for length in lengths[:-1])
    assert len(lengths) > 1 or len(data) <= sizes.max_bytes


@pytest.mark.parametrize("kind", DATA)
def test_sizes_are_respected_and_met_on_the_average(kind: str) -> None:
    data = DATA[kind]()
    assert_within(data, SIZES)
    assert EXPECTED * 0.7 < len(chunks(data)) < EXPECTED * 1.4


@pytest.mark.parametrize("kind", DATA)
def test_an_insertion_changes_few_chunks(kind: str) -> None:
    data = DATA[kind]()
    before = set(chunks(data))
    assert len(before) > EXPECTED // 2
    for inserted in (b"!", b"some longer text\n" * 700):
        for at in (1000, len(data) // 2):
            changed = [chunk for chunk in chunks(data[:at] + inserted + data[at:]) if chunk not in before]
            assert 1 <= len(changed) <= 12


def test_an_insertion_into_large_chunks_changes_few() -> None:
    """With the sizes that repositories have by default."""
    sizes = ChunkSizes(4 << 20, 8 << 20, 16 << 20)
    data = some_random().randbytes(100 << 20)
    before = set(chunks(data, sizes))
    changed = [chunk for chunk in chunks(data[:1000] + b"!" + data[1000:], sizes) if chunk not in before]
    assert len(before) > 8
    assert 1 <= len(changed) <= 3


def test_the_places_never_change() -> None:
    """Other places in a newer version would store every large file anew."""
    data = b"".join(hashlib.sha256(b"%d" % number).digest() for number in range(20_000))
    assert cuts(data) == GOLDEN


def test_what_is_appended_leaves_the_rest() -> None:
    data = DATA["random"]()
    assert chunks(data + b"more")[:-4] == chunks(data)[:-4]


@pytest.mark.parametrize("byte", [b"\0", b"\xff", b"a"])
def test_constant_data_is_cut_at_the_maximum(byte: bytes) -> None:
    data = byte * (SIZES.max_bytes * 3 + 5)
    assert [len(chunk) for chunk in chunks(data)] == [*[SIZES.max_bytes] * 3, 5]


@pytest.mark.parametrize("period", [b"ab", b"\0\0\0\1", b"one line of a log\n", bytes(range(256))])
def test_periodic_data_gives_equal_chunks(period: bytes) -> None:
    data = period * (TOTAL // len(period))
    assert_within(data, SIZES)
    assert len(chunks(data)) <= TOTAL // SIZES.min_bytes
    assert len(set(chunks(data))) <= 3  # the first, the last, and all between


def test_equal_minimum_and_maximum_are_blocks() -> None:
    sizes = ChunkSizes(1000, 1000, 1000)
    assert {len(chunk) for chunk in chunks(DATA["text"]()[:50_000], sizes)} == {1000}


@pytest.mark.parametrize(("size", "count"), [(0, 0), (1, 1), (SIZES.max_bytes, 1), (SIZES.max_bytes + 1, 2)])
def test_files_up_to_the_maximum_are_one_piece(size: int, count: int) -> None:
    assert len(chunks(DATA["random"]()[:size])) == count


@given(
    data=st.binary(max_size=60).flatmap(lambda some: st.integers(0, 60).map(lambda times: some * times)),
    steps=st.tuples(st.integers(1, 100), st.integers(0, 100), st.integers(0, 300)),
)
def test_any_data_is_covered_within_any_sizes(data: bytes, steps: tuple[int, int, int]) -> None:
    minimum, more, most = steps
    sizes = ChunkSizes(minimum, minimum + more, minimum + more + most)
    assert_within(data, sizes)
    assert cuts(data, sizes) == cuts(bytes(bytearray(data)), sizes)


def test_more_to_look_at_changes_nothing() -> None:
    data = DATA["text"]()
    assert cut_of(data, len(data), SIZES) == cut_of(data[: SIZES.window_end_bytes], len(data), SIZES)


def test_sizes_that_do_not_rise_are_refused() -> None:
    with pytest.raises(ValueError, match="rise"):
        ChunkSizes(10, 9, 20)
    with pytest.raises(ValueError, match="rise"):
        ChunkSizes(0, 9, 20)
