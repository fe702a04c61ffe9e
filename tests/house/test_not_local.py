"""`NotLocal` is raised in one place, so that one look tells whether an object counts as local."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from tests.house.sources import PACKAGES, TOP, Source, sources

if TYPE_CHECKING:
    from collections.abc import Iterator

PLACE = "cache/store.py"


def raises_of(source: Source) -> Iterator[int]:
    """Lines that make a `NotLocal`. To raise a caught one again makes none."""
    for node in ast.walk(source.syntax):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "id", getattr(node.func, "attr", None))
            if name == "NotLocal":
                yield node.lineno


def test_not_local_is_made_by_the_store_alone() -> None:
    found = {source.name for source in sources(*PACKAGES) if list(raises_of(source))}
    assert found == {PLACE}


def test_the_store_makes_it_for_one_object_and_for_several() -> None:
    assert len(list(raises_of(Source(TOP / PLACE)))) == 2


def test_strays_are_found() -> None:
    assert list(raises_of(Source(TOP / "catalog" / "made.py", "raise NotLocal((ref,))")))
    assert list(raises_of(Source(TOP / "catalog" / "made.py", "from cache import ref\nraise ref.NotLocal(())")))
    assert not list(raises_of(Source(TOP / "catalog" / "made.py", "try: f()\nexcept NotLocal: raise")))
