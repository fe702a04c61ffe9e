"""Path keys: the vectors of the format."""

from __future__ import annotations

import pytest

from catalog.pathkey import path_key


@pytest.mark.parametrize(
    ("path", "key"),
    [(b"", (338333539836370388, 9098107892288553193)), (b"/foo", (5745132282796244766, -5819618580357280866))],
)
def test_the_key_is_two_signed_little_endian_halves_of_the_md5(path: bytes, key: tuple[int, int]) -> None:
    assert path_key(path) == key


def test_the_root_is_the_empty_path() -> None:
    assert path_key(b"/") != path_key(b"")
