"""Rows of the result and how they are printed. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_UNITS_OF_TIME = (("s", 1.0), ("ms", 1e-3), ("us", 1e-6))


@dataclass(frozen=True, slots=True)
class Row:
    """One measured thing.

    `value` is the median of `samples` where there are several; `ratio` compares it with what `beside` names, which was
    measured in the same run.
    """

    name: str
    value: float
    unit: str  # "s" is shown as s, ms or us; "B" as MiB or KiB
    beside: str = ""
    ratio: float | None = None
    note: str = ""
    samples: tuple[float, ...] = ()
    counts: Mapping[str, object] = field(default_factory=dict)  # for the JSON file only


def timed(
    name: str, samples_s: Sequence[float], *, beside: str = "", limit_s: float | None = None, note: str = ""
) -> Row:
    """A row of times; with a limit, how many times the limit the median is."""
    value = median(samples_s)
    return Row(name, value, "s", beside, None if limit_s is None else value / limit_s, note, tuple(samples_s))


def rate(name: str, per_s: float, what: str, *, note: str = "") -> Row:
    return Row(name, per_s, f"{what}/s", note=note)


def as_dict(row: Row) -> dict[str, object]:
    return {
        "name": row.name,
        "value": row.value,
        "unit": row.unit,
        "beside": row.beside,
        "ratio": row.ratio,
        "note": row.note,
        "samples": list(row.samples),
        **({"counts": dict(row.counts)} if row.counts else {}),
    }


def format_table(sections: Sequence[tuple[str, Sequence[Row]]]) -> str:
    """All rows under the headings of their sections, with common columns."""
    cells: list[tuple[str, ...] | str] = [("", "value", "best", "ratio", "to what; counts")]
    for title, rows in sections:
        cells.append(title)
        cells += [_cells(row) for row in rows]
    widths = [max(len(line[column]) for line in cells if not isinstance(line, str)) for column in range(4)]
    lines = []
    for line in cells:
        if isinstance(line, str):
            lines += ["", line]
            continue
        name, value, best, ratio, words = line
        lines.append(
            f"  {name:<{widths[0]}}  {value:>{widths[1]}}  {best:>{widths[2]}}  {ratio:>{widths[3]}}  {words}".rstrip()
        )
    return "\n".join(lines)


def format_value(value: float, unit: str) -> str:
    """A value as people read it: three digits or so."""
    if unit == "s":
        for name, size in _UNITS_OF_TIME:
            if value >= size:
                return f"{_digits(value / size)} {name}"
        return f"{_digits(value / 1e-6)} us"
    if unit == "B":
        return f"{value / 2**20:.1f} MiB" if abs(value) >= 2**20 else f"{value / 1024:.0f} KiB"
    return f"{value:,.0f} {unit}" if value >= 100 else f"{_digits(value)} {unit}"


def _cells(row: Row) -> tuple[str, ...]:
    best = format_value(min(row.samples), row.unit) if len(row.samples) > 1 else ""
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}x"
    words = "; ".join(part for part in (row.beside, row.note) if part)
    return row.name, format_value(row.value, row.unit), best, ratio, words


def _digits(value: float) -> str:
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
