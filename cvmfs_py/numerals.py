"""Numbers with their nouns, in messages. Pure."""

from __future__ import annotations


def counted(count: int, word: str, plural: str = "") -> str:
    """A number with its noun: 1 file, 1,690 files."""
    return f"{count:,} {word if count == 1 else plural or word + 's'}"
