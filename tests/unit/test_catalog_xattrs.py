"""Stored extended attributes: the packed form, and that any violation of it means no attributes at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.xattrs import parse_xattr_blob

NAMES = st.binary(min_size=1, max_size=255).filter(lambda name: b"\0" not in name)
ATTRIBUTES = st.dictionaries(NAMES, st.binary(max_size=255), max_size=20)


def pack(attributes: dict[bytes, bytes]) -> bytes:
    packed = b"".join(bytes((len(k), len(v))) + k + v for k, v in attributes.items())
    return bytes((1, len(attributes))) + packed


@given(ATTRIBUTES, st.binary(max_size=20))
def test_what_was_packed_is_found_and_bytes_after_the_last_entry_do_not_matter(
    attributes: dict[bytes, bytes], rest: bytes
) -> None:
    assert parse_xattr_blob(pack(attributes) + rest) == attributes


@given(ATTRIBUTES.filter(bool), st.data())
def test_a_truncated_blob_has_no_attributes(attributes: dict[bytes, bytes], data: st.DataObject) -> None:
    blob = pack(attributes)
    assert parse_xattr_blob(blob[: data.draw(st.integers(0, len(blob) - 1))]) == {}


@given(st.binary(max_size=600))
def test_no_blob_is_an_error(blob: bytes) -> None:
    assert isinstance(parse_xattr_blob(blob), dict)


def test_the_last_of_equal_names_wins() -> None:
    assert parse_xattr_blob(b"\1\2" + b"\1\1kA" + b"\1\1kB") == {b"k": b"B"}


@pytest.mark.parametrize(
    "blob",
    [
        None,
        b"",
        b"\1",
        b"\2\1\1\1kv",  # another version
        b"\1\1\0\0",  # an entry of nothing
        b"\1\1\0\1v",  # no name
        b"\1\1\3\1a\0bv",  # NUL in the name
        b"\1\2\1\1kv",  # one entry less than promised
        b"\1\2\1\1kv\1\2kv",  # the second one too short
    ],
)
def test_one_violation_voids_the_whole_list(blob: bytes | None) -> None:
    assert parse_xattr_blob(blob) == {}
