"""Modules stay small enough to be read in one sitting."""

from __future__ import annotations

from tests.house.sources import PACKAGES, sources

LIMIT_LINES = 400  # a budget of 300, and a margin
TEST_LIMIT_LINES = 600  # cases in a row are read one at a time


def too_long(limit_lines: int, *folders: str) -> list[str]:
    """Offenders, longest first."""
    counted = sorted(((source.text.count("\n"), source.name) for source in sources(*folders)), reverse=True)
    assert counted
    return [f"{name}: {lines} lines (limit {limit_lines})" for lines, name in counted if lines > limit_lines]


def test_modules_are_short() -> None:
    found = too_long(LIMIT_LINES, *PACKAGES)
    assert not found, "split these by job:\n" + "\n".join(found)


def test_tests_are_short() -> None:
    found = too_long(TEST_LIMIT_LINES, "tests", "benchmarks")
    assert not found, "split these by subject:\n" + "\n".join(found)
