"""The argument parser of every command: short usage, help of a fixed width, errors in one line.

What it prints is the same in every version of Python and on every terminal, so that the documentation can quote it.
"""

from __future__ import annotations

import argparse
import textwrap
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Sequence

WIDTH = 80
EXIT_USAGE = 2


class _Formatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=WIDTH, max_help_position=24)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        """`-j, --jobs N`, which versions before 3.13 write as `-j N, --jobs N`."""
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        return f"{', '.join(action.option_strings)} {_name(action)}"


class Parser(argparse.ArgumentParser):
    """A parser whose help ends with examples."""

    def __init__(self, prog: str, summary: str, examples: Sequence[str]) -> None:
        lines = "\n".join(f"  {line}" for line in examples)
        super().__init__(
            prog=prog,
            description="\n\n".join(map(_wrap, summary.split("\n\n"))),
            epilog=f"{'example' if len(examples) == 1 else 'examples'}:\n{lines}",
            formatter_class=_Formatter,
            allow_abbrev=False,
        )

    def format_help(self) -> str:
        words = [_usage_word(action) for action in self._actions if not action.option_strings]
        self.usage = " ".join(["%(prog)s", "[OPTIONS]", *words])
        return super().format_help()

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_USAGE, f"{self.prog}: {message}; see {self.prog} --help\n")


def _wrap(paragraph: str) -> str:
    """A paragraph filled up to the width; a list stays as it is."""
    return paragraph if paragraph.startswith(" ") else textwrap.fill(paragraph, WIDTH)


def _usage_word(action: argparse.Action) -> str:
    name = _name(action)
    return {"+": f"{name} ...", "?": f"[{name}]", "*": f"[{name} ...]"}.get(str(action.nargs), name)


def _name(action: argparse.Action) -> str:
    return str(action.metavar) if action.metavar is not None else action.dest.upper()
