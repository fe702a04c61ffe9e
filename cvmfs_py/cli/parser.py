"""The argument parser of every command: short usage, help that fits the terminal, errors in one line.

What it says is the same in every version of Python; as a text, without a terminal, it has a fixed width, so that the
documentation can quote it.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import textwrap
from functools import partial
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from _typeshed import SupportsWrite

WIDTH = 80
NARROWEST = 50  # for the longest line that cannot be broken; a narrower terminal breaks it itself
WIDEST = 110  # longer lines are hard to read
EXIT_USAGE = 2
_LISTED = re.compile(r" +\S.*?  +| +\S+ +")  # what stands before the text of a line in a list


def terminal_width() -> int:
    """Columns for a text on standard output, between what is possible and what is readable."""
    return min(max(shutil.get_terminal_size((WIDTH, 24)).columns, NARROWEST), WIDEST)


class _Formatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str, width: int) -> None:
        super().__init__(prog, width=width, max_help_position=24)

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
            epilog=f"{'example' if len(examples) == 1 else 'examples'}:\n{lines}",
            allow_abbrev=False,
        )
        self.color = False  # of versions from 3.14 on, which would paint it
        self._summary = summary
        self._words: list[str] = []  # of the line of usage

    def format_help(self) -> str:
        return self._help(WIDTH)

    def print_help(self, file: SupportsWrite[str] | None = None) -> None:
        """Lines as long as the terminal's; examples stay whole, to be copied."""
        (file or sys.stdout).write(self._help(terminal_width()))

    def parse_known_intermixed_args(  # type: ignore[override]  # nobody here brings a namespace
        self, args: Sequence[str] | None = None, namespace: None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        # Before 3.12.8 and 3.13.1 the arguments lose what they are, all while --help is answered.
        self._fix_words()
        return super().parse_known_intermixed_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_USAGE, f"{self.prog}: {message}; see {self.prog} --help\n")

    def _help(self, width: int) -> str:
        self._fix_words()
        self.usage = textwrap.fill(" ".join(self._words), width - len("usage: "), subsequent_indent="  ")
        self.description = "\n\n".join(fill(paragraph, width) for paragraph in self._summary.split("\n\n"))
        self.formatter_class = partial(_Formatter, width=width)
        return super().format_help()

    def _fix_words(self) -> None:
        if not self._words:
            words = [_usage_word(action) for action in self._actions if not action.option_strings]
            self._words = [self.prog, "[OPTIONS]", *words]
            self.usage = " ".join(self._words)


def fill(paragraph: str, width: int) -> str:
    """A paragraph, or a list whose lines begin with a blank and a word, filled up to the width."""
    if not paragraph.startswith(" "):
        return textwrap.fill(paragraph, width)
    return "\n".join(_fill_item(line, width) for line in paragraph.split("\n"))


def _fill_item(line: str, width: int) -> str:
    found = _LISTED.match(line)
    indent = " " * (found.end() if found is not None else 2)
    return textwrap.fill(line, width, subsequent_indent=indent, break_on_hyphens=False)


def _usage_word(action: argparse.Action) -> str:
    name = _name(action)
    return {"+": f"{name} ...", "?": f"[{name}]", "*": f"[{name} ...]"}.get(str(action.nargs), name)


def _name(action: argparse.Action) -> str:
    return str(action.metavar) if action.metavar is not None else action.dest.upper()
