"""Decimal numbers as the format's text files write them. Pure; safe from any thread."""

from __future__ import annotations

import re

MAXIMUM = 2**64 - 1

_LEADING_DIGITS = re.compile(r"0*([0-9]*)")


def parse_number(text: str) -> int:
    """The leading decimal digits of a text: 0 when there are none, never above the largest unsigned 64-bit number."""
    match = _LEADING_DIGITS.match(text)
    digits = match.group(1) if match else ""
    if len(digits) > 20:  # also keeps Python's own limit on the length of numbers out of reach
        return MAXIMUM
    return min(int(digits or "0"), MAXIMUM)
