"""One file, two files: what is counted in messages goes through `counted`, or through an `if` beside it."""

from __future__ import annotations

import re

from tests.house.sources import PACKAGES, sources

NOUNS = (
    "catalogs chunks directories entries errors files keys lines links mounts objects pins problems proxies"
    " repositories revisions rows servers snapshots tags warnings"
)
# A limit, in capitals, is never one.
COUNTED = re.compile(
    rf"""\{{(?![A-Z_]+\}})[^{{}}"]+\}} (?:(?:damaged|hard|more|nested|new|pinned) )?(?:{"|".join(NOUNS.split())})\b"""
)


def wrong_plurals(text: str) -> list[str]:
    lines = [line for line in text.splitlines() if "== 1 else" not in line]
    return [line.strip() for line in lines if COUNTED.search(line)]


def test_nothing_says_1_files() -> None:
    found = [f"{source.name}: {line}" for source in sources(*PACKAGES) for line in wrong_plurals(source.text)]
    assert not found, "use counted():\n" + "\n".join(found)


def test_wrong_plurals_are_found() -> None:
    assert wrong_plurals('f"{report.files:,} files, {n} links"')
    assert wrong_plurals('f"{len(left)} more warnings"')
    assert not wrong_plurals("""f"more than {LIMIT} files, {counted(n, 'file')}" """)
