"""The seal of stored objects."""

from __future__ import annotations

import zlib

from hypothesis import given
from hypothesis import strategies as st

from cache.seal import is_sealed, keeps_checksum, matches_checksum, seal_ns, seal_seconds

TEXTS = st.binary(min_size=20, max_size=20).map(bytes.hex)
SIZES = st.integers(0, 2**40)
CHECKSUMS = st.integers(0, 2**32 - 1)
NS_PER_S = 1_000_000_000


@given(TEXTS, SIZES, CHECKSUMS)
def test_a_seal_proves_what_it_was_made_for(text: str, size_bytes: int, checksum: int) -> None:
    seal = seal_ns(text, size_bytes, checksum)
    assert is_sealed(text, size_bytes, seal)
    assert keeps_checksum(seal)
    assert matches_checksum(checksum, seal)


@given(TEXTS, SIZES)
def test_seals_are_even_seconds_of_32_bits(text: str, size_bytes: int) -> None:
    assert 2**30 <= seal_seconds(text, size_bytes) < 2**31
    assert seal_seconds(text, size_bytes) % 2 == 0


@given(TEXTS, SIZES, CHECKSUMS, st.sampled_from([100, 1_000, 1_000_000]))
def test_coarse_file_systems_keep_part_of_the_checksum(text: str, size_bytes: int, checksum: int, grain: int) -> None:
    kept = seal_ns(text, size_bytes, checksum) // grain * grain
    assert is_sealed(text, size_bytes, kept)
    assert keeps_checksum(kept)
    assert matches_checksum(checksum, kept)


@given(TEXTS, SIZES, CHECKSUMS)
def test_whole_seconds_prove_name_and_size_only(text: str, size_bytes: int, checksum: int) -> None:
    kept = seal_ns(text, size_bytes, checksum) // NS_PER_S * NS_PER_S
    assert is_sealed(text, size_bytes, kept)
    assert not keeps_checksum(kept)


def test_other_names_sizes_and_contents_do_not_fit() -> None:
    text, other = "ab" * 20, "ac" + "ab" * 19
    seal = seal_ns(text, 1000, zlib.crc32(b"content"))
    assert not is_sealed(other, 1000, seal)
    assert not is_sealed(text + "-rmd160", 1000, seal)
    assert not is_sealed(text, 999, seal)
    assert not matches_checksum(zlib.crc32(b"Content"), seal)
