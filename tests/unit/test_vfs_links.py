"""Variant symlinks: the table of the format, and everything else against a reading of its grammar letter by letter."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfs_py.vfs.links import expand_target

VARIABLES = {b"A": b"x", b"E": b""}


@pytest.mark.parametrize(
    ("target", "expanded"),
    [
        (b"$(A)/$(B:-d)/z", b"x/d/z"),
        (b"$(B)", b""),
        (b"$(E:-d)", b""),
        (b"$(A:-d)", b"x"),
        (b"$(B:-$(A))", b"$(A)"),
        (b"$(B:-a:-b)", b"a:-b"),
        (b"$(A", b"$(A"),
        (b"$A", b"$A"),
        (b"${A}", b"${A}"),
        (b"$(", b"$("),
        (b"$$(A)", b"$x"),
        (b"$()", b""),
        (b"$(:-d)", b"d"),
        (b"$(B:d)", b""),
        (b"$(A)$(A)(A)$A)", b"xx(A)$A)"),
        (b"$(A)/$(A", b"x/$(A"),
        (b"$(\nA)", b""),
        (b"", b""),
        (b"plain/../target\xff", b"plain/../target\xff"),
    ],
)
def test_the_grammar(target: bytes, expanded: bytes) -> None:
    assert expand_target(target, VARIABLES) == expanded


def test_values_are_not_expanded_again() -> None:
    assert expand_target(b"$(A)", {b"A": b"$(B)", b"B": b"no"}) == b"$(B)"


def by_letter(target: bytes, variables: dict[bytes, bytes]) -> bytes:
    """The grammar as a scanner from left to right."""
    result = bytearray()
    position = 0
    while position < len(target):
        end = target.find(b")", position + 2)
        if target[position : position + 2] != b"$(" or end < 0:
            result.append(target[position])
            position += 1
            continue
        inside = target[position + 2 : end]
        separator = inside.find(b":-")
        name = inside if separator < 0 else inside[:separator]
        default = b"" if separator < 0 else inside[separator + 2 :]
        result += variables.get(name, default)
        position = end + 1
    return bytes(result)


PIECES = st.sampled_from([b"$", b"(", b")", b"$(", b":-", b":", b"-", b"A", b"E", b"B", b"/", b"..", b"\xff"])


@given(
    st.lists(PIECES, max_size=24).map(b"".join), st.dictionaries(st.sampled_from([b"", b"A", b"E", b"AB"]), st.binary())
)
def test_every_text_is_read_as_the_grammar_says(target: bytes, variables: dict[bytes, bytes]) -> None:
    assert expand_target(target, variables) == by_letter(target, variables)


@pytest.mark.parametrize("piece", [b"$(", b"$(A", b"$(A)", b"$(:-", b"$"])
def test_a_hostile_target_takes_no_time(piece: bytes) -> None:
    """Links of several megabytes fit into a catalog; a client must not think about one for hours."""
    target = piece * (4_000_000 // len(piece))
    start = time.process_time()
    expand_target(target, VARIABLES)
    assert time.process_time() - start < 5  # takes a fraction of a second
