"""`python -m benchmarks.plot NUMBERS.json PLOT.svg`: the mount workloads of one run as bars. Plain text, no library.

A bar is a ratio to the local disk of the same run, on a logarithmic scale; the dark line is the local disk itself.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

LOWEST, HIGHEST = 0.25, 64.0  # ratios at the ends of the scale
_COLOURS = {"channel": "#1f6f8b", "pyfuse3": "#d98f4e"}
_LEFT, _WIDTH, _BAR, _GAP, _TOP = 330, 520, 13, 10, 64


@dataclass(frozen=True, slots=True)
class Bar:
    """One engine at one workload."""

    workload: str
    engine: str
    ratio: float
    messages: int


def bars_of(rows: Sequence[dict[str, Any]]) -> list[Bar]:
    """The rows that have a local disk beside them, under the names that its rows have."""
    names: dict[str, str] = {}
    found = []
    for row in rows:
        counts = row.get("counts", {})
        key = counts.get("workload")
        if key is None:
            continue
        if counts["engine"] == "local":
            names[key] = f"{row['name'].rpartition(':')[0]} ({counts['state']})"
        elif key in names:
            found.append(Bar(names[key], counts["engine"], row["ratio"], sum(counts["messages"].values())))
    return found


def format_svg(bars: Sequence[Bar], title: str) -> str:
    workloads = list(dict.fromkeys(bar.workload for bar in bars))
    heights = [sum(bar.workload == name for bar in bars) * _BAR + _GAP for name in workloads]
    bottom = _TOP + sum(heights)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_LEFT + _WIDTH + 150}" height="{bottom + 30}"'
        ' font-family="sans-serif" font-size="11">',
        '<rect width="100%" height="100%" fill="white"/>',
        _text(10, 20, title, size=14),
        *(_text(_LEFT + 110 * number, 42, engine, fill=fill) for number, (engine, fill) in enumerate(_COLOURS.items())),
    ]
    for exponent in range(round(math.log2(LOWEST)), round(math.log2(HIGHEST)) + 1):
        x = _x(2.0**exponent)
        stroke = "#ddd" if exponent else "#444"
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP - 8}" y2="{bottom}" stroke="{stroke}"/>')
        parts.append(_text(x - 8, bottom + 16, f"{2.0**exponent:g}x"))
    y = _TOP
    for name, height in zip(workloads, heights, strict=True):
        parts.append(_text(10, y + 11, name if len(name) <= 58 else f"{name[:56]}...", size=10))
        for number, bar in enumerate(bar for bar in bars if bar.workload == name):
            top = y + number * _BAR
            start, end = sorted((_x(1.0), _x(bar.ratio)))
            parts.append(
                f'<rect x="{start:.1f}" y="{top}" width="{max(1.0, end - start):.1f}" height="{_BAR - 2}"'
                f' fill="{_COLOURS.get(bar.engine, "#888")}"/>'
            )
            parts.append(_text(end + 4, top + 10, f"{bar.ratio:.2f}x, {bar.messages:,} messages", size=9))
        y += height
    return "\n".join([*parts, "</svg>"]) + "\n"


def _x(ratio: float) -> float:
    shown = min(max(ratio, LOWEST), HIGHEST)
    return _LEFT + _WIDTH * math.log(shown / LOWEST) / math.log(HIGHEST / LOWEST)


def _text(x: float, y: float, text: str, *, size: int = 11, fill: str = "#222") -> str:
    shown = text.replace("&", "&amp;").replace("<", "&lt;")
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{fill}">{shown}</text>'


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plot", description="Draw the mount workloads of a run.")
    parser.add_argument("numbers", type=Path, help="what ./dev bench mount --json has written")
    parser.add_argument("plot", type=Path, help="the SVG file to write")
    options = parser.parse_args()
    try:
        run = json.loads(options.numbers.read_bytes())
    except (OSError, ValueError) as error:
        parser.error(f"{options.numbers} holds no numbers: {error}")
    bars = bars_of(run["rows"])
    if not bars:
        parser.error(f"{options.numbers} has no mount workloads; run ./dev bench mount --json FILE")
    options.plot.write_text(format_svg(bars, f"Time beside a local disk; {run['machine']['run']}"), encoding="utf-8")


if __name__ == "__main__":
    main()
