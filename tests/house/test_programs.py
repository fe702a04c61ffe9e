"""Every program that the code, the tests and the benchmarks call is on every Linux, or `./dev` installs it.

Reads the call sites: lists of words that are command lines, `which`, declared needs, and shell scripts in texts.
"""

from __future__ import annotations

import ast
import re
import shutil
from typing import TYPE_CHECKING

from cvmfs_py.cli.app import COMMANDS
from tests.house.sources import TOP, Source, sources
from tests.rights import RIGHTS, SEARCH_PATH

if TYPE_CHECKING:
    from collections.abc import Iterator


def _words(text: str) -> set[str]:
    return set(text.split())


# What the smallest Debian has, beside the shell's own words.
EVERYWHERE = _words(
    """cat chmod chown cp cut date diff env find grep gzip head id ln ls mkdir mkfifo mknod mktemp mount mv od readlink
    rm rmdir sed seq setsid sh sleep sort stat stty su tail tar tee timeout touch tr truncate umount uname wc xargs"""
)
SHELL = _words(
    """: . [ alias break case cd command continue do done echo elif else esac eval exec exit export false fi for if in
    kill local printf pwd read return set shift test then times trap true type ulimit umask unset until wait while
    function local source"""
)
OURS = {"cvmfs-py", "cvmfs2", "python", "python3", "python3.X", "pytest"}
# Called where they are there: by what looks at a machine, or by its owner.
OPTIONAL = {"docker", "fusermount", "modprobe", "sudo", "apt-config"}
CALLS = {"run", "Popen", "check_output", "check_call", "call"}
NAMED = {"which", "needs"}
COMMAND = re.compile(
    r"(?:^|[;&|(`!]|\$\(|\b(?:then|do|else|if|while|until|exec|env)\b)[ \t]*(?:[A-Za-z_]\w*=\S*[ \t]+)*"
    r"([a-z][a-z0-9._-]*)(?=[ \t;&|)<>]|$)",
    re.MULTILINE,
)
FUNCTION = re.compile(r"\b(\w+)\(\)")
SCRIPT = re.compile(r"\$[\w({]|&&|;[ \t\n]|^set -|\| ", re.MULTILINE)
HIDDEN = re.compile(r"#.*|'[^']*'|\"[^\"]*\"|<<.*")


def installed() -> set[str]:
    """What `./dev` says that it installs."""
    text = (TOP / "dev").read_text()
    block = re.search(r"^TEST_PROGRAMS='\n(.*?)^'", text, re.MULTILINE | re.DOTALL)
    assert block is not None
    lines = [line.split() for line in block[1].splitlines()]
    assert all(len(fields) == 3 for fields in lines)  # the program, and its package here and there
    return {fields[0] for fields in lines}


def called_by(source: Source) -> Iterator[tuple[str, int]]:
    """Programs and the lines in which they are called."""
    documentation = {
        id(node.body[0].value)
        for node in ast.walk(source.syntax)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(source.syntax):
        if isinstance(node, ast.Call):
            yield from _named(node)
        elif isinstance(node, ast.List):
            yield from _command_line(node)
        elif isinstance(node, ast.Constant | ast.JoinedStr) and id(node) not in documentation:
            yield from _in_script(node)


def _named(call: ast.Call) -> Iterator[tuple[str, int]]:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if name in NAMED:
        words = [word for word in map(_text, call.args) if word]
        yield from ((word, call.lineno) for word in words if word not in RIGHTS)
    elif name == "parametrize" and _text(call.args[0]) == "program" and isinstance(call.args[1], ast.List):
        yield from ((word, call.lineno) for word in map(_text, call.args[1].elts) if word)
    elif (
        name in CALLS
        and ast.unparse(call.func).startswith("subprocess.")
        and call.args
        and isinstance(call.args[0], ast.List)
        and call.args[0].elts
    ):
        word = _text(call.args[0].elts[0])
        if word and "/" not in word and not word.startswith("-"):
            yield word, call.lineno


def _command_line(line: ast.List) -> Iterator[tuple[str, int]]:
    """A list of words that begins with a program of this machine, and is none of our own commands."""
    words = [_text(element) for element in line.elts]
    is_command = len(words) > 1 and any(word.startswith("-") for word in words) and words[0] not in COMMANDS
    if is_command and _is_program(words[0]):
        yield words[0], line.lineno


def _in_script(node: ast.Constant | ast.JoinedStr) -> Iterator[tuple[str, int]]:
    text = _text(node)
    if "\n" not in text or not SCRIPT.search(text):
        return
    functions = set(FUNCTION.findall(text))
    for match in COMMAND.finditer(HIDDEN.sub("X", text)):
        if match[1] not in functions and _is_program(match[1]):
            yield match[1], node.lineno


def _is_program(word: str) -> bool:
    """Not every word in such a place is one; where all tests run, all programs that they call are there."""
    return re.fullmatch(r"[a-z][a-z0-9._-]+", word) is not None and shutil.which(word, path=SEARCH_PATH) is not None


def _text(node: ast.AST) -> str:
    """A constant text; of a composed one what is constant in it."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "X" for part in node.values)
    return ""


def test_programs_are_everywhere_or_installed() -> None:
    known = EVERYWHERE | SHELL | OURS | OPTIONAL | installed()
    found = [
        f"{source.name}:{line}: {program}"
        for source in sources("cvmfs_py", "cache", "catalog", "tests", "benchmarks")
        for program, line in called_by(source)
        if program not in known
    ]
    assert not found, "add them to TEST_PROGRAMS in ./dev:\n" + "\n".join(found)


def test_what_is_installed_is_called() -> None:
    called = {program for source in sources("cvmfs_py", "tests", "benchmarks") for program, _ in called_by(source)}
    assert installed() - called == set()
