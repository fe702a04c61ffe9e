"""The parts of README.md that are made from the program. `python -m tests.house.readme` brings them up to date.

They stand between `<!-- begin NAME -->` and `<!-- end NAME -->`; a test compares them.
"""

from __future__ import annotations

import importlib
import re
import shlex
from typing import TYPE_CHECKING

from cvmfs_py.cli.app import COMMANDS, overview
from cvmfs_py.config.show import format_reference
from cvmfs_py.vfs.magic_table import format_table
from tests.house.sources import TOP

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

README = TOP / "README.md"
COMMON_GROUPS = ("messages", "repository", "pin a snapshot (default: the newest revision)")
_FENCE = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")


def parser_of(command: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = importlib.import_module(COMMANDS[command].module).build_parser(
        f"cvmfs-py {command}"
    )
    return parser


def parsers() -> dict[str, argparse.ArgumentParser]:
    """The parser of every command, and of every action of those that only find one, by the words that call it."""
    found: dict[str, argparse.ArgumentParser] = {}
    for name, command in COMMANDS.items():
        found[name] = parser_of(name)
        module = importlib.import_module(command.module)
        if hasattr(module, "load_action"):
            for action in module.ACTIONS:
                build_parser, _ = module.load_action(action)
                found[f"{name} {action}"] = build_parser(f"cvmfs-py {name} {action}")
    return found


def sections() -> dict[str, str]:
    """Every generated part by name."""
    return {
        "commands": _commands(),
        "parameters": "\n" + format_reference() + "\n",
        "attributes": "\n" + format_table() + "\n",
    }


def _commands() -> str:
    parts = [f"\n```text\n{overview()}\n```\n"]
    common: dict[str, str] = {}  # the width of the left column differs from command to command
    for name, parser in parsers().items():
        own: list[str] = []
        for block in parser.format_help().rstrip("\n").split("\n\n"):
            title = block.partition(":\n")[0]
            if title in COMMON_GROUPS:
                common.setdefault(title, block)
            else:
                own.append(block)
        parts.append(f"### cvmfs-py {name}\n\n```text\n" + "\n\n".join(own) + "\n```\n")
    parts.append("### Common options\n\n```text\n" + "\n\n".join(common.values()) + "\n```\n")
    return "\n".join(parts) + "\n"


def markers(name: str) -> tuple[str, str]:
    return f"<!-- begin {name} -->\n", f"<!-- end {name} -->\n"


def updated(text: str) -> str:
    """A text with every generated part as it is now."""
    for name, body in sections().items():
        begin, end = markers(name)
        before, found, rest = text.partition(begin)
        _, found_end, after = rest.partition(end)
        if not (found and found_end):
            raise ValueError(f"README.md has no part between {begin!r} and {end!r}")
        text = before + begin + body + end + after
    return text


def shell_lines(text: str) -> Iterator[str]:
    """The lines of the shell examples, continued ones joined."""
    for block in _FENCE.findall(text):
        yield from filter(None, map(str.strip, block.replace("\\\n", " ").splitlines()))


def words_of(line: str) -> list[str]:
    """The words of the first command in a line, without variables before it; nothing for a comment."""
    words = shlex.split(line, comments=True)
    for end, word in enumerate(words):
        if word in ("|", ">", "&&", ";"):
            words = words[:end]
            break
    while words and _ASSIGNMENT.match(words[0]):
        words = words[1:]
    return words


if __name__ == "__main__":
    README.write_text(updated(README.read_text("utf-8")), "utf-8")
