"""Makes the tree that programs are run on and from: a compiler, an interpreter, a work tree, and one of everything.

    top/tree     every kind of entry          top/many    3,000 files in one directory
    top/python   an interpreter, its library  top/work    a Git work tree
    top/tools    a C compiler with headers    top/bin     a compiled program and scripts
    top/large    a file in many chunks

All of it comes from this machine. Needs gcc and git.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

LARGE_BYTES = 12 << 20
MANY = 3000
PACKAGES = (  # of the standard library
    "asyncio",
    "collections",
    "concurrent",
    "ctypes",
    "email",
    "encodings",
    "html",
    "http",
    "importlib",
    "json",
    "logging",
    "multiprocessing",
    "re",
    "sqlite3",
    "unittest",
    "urllib",
    "xml",
)
HELLO = '#include <stdio.h>\n#include <string.h>\nint main(void) { printf("%zu\\n", strlen("hello")); return 7; }\n'
_DIRECTORY_TIME_NS = 1_500_000_000_987_654_321


def make_tree(top: Path) -> None:
    top.mkdir()
    _make_entries(top / "tree")
    _make_many(top / "many")
    _make_python(top / "python")
    _make_tools(top / "tools")
    _make_programs(top / "bin")
    _make_work_tree(top / "work")
    (top / "large").write_bytes(random.Random(11).randbytes(LARGE_BYTES))


def _make_entries(top: Path) -> None:
    """What a faithful copy has to keep."""
    for name in ("plain", "modes", "links/below", "odd names"):
        (top / name).mkdir(parents=True)
    (top / "plain" / "empty").touch()
    (top / "plain" / "text").write_text("all work and no play\n" * 1000)
    (top / "plain" / "binary").write_bytes(bytes(range(256)) * 2000)
    for mode in (0o000, 0o400, 0o444, 0o640, 0o755, 0o1777, 0o2755, 0o4755):
        path = top / "modes" / f"{mode:o}"
        path.write_text(f"{mode:o}\n")
        os.chown(path, mode, mode + 1)
        path.chmod(mode)
    (top / "links" / "relative").symlink_to("../plain/text")
    (top / "links" / "absolute").symlink_to("/etc/hostname")
    (top / "links" / "dangling").symlink_to("no such thing")
    (top / "links" / "below" / "up").symlink_to("..")
    (top / "links" / "one").write_text("one of three\n")
    for name in ("two", "three"):
        os.link(top / "links" / "one", top / "links" / name)
    os.mkfifo(top / "plain" / "fifo")
    for number, name in enumerate((b"\xff\xfe", b"new\nline", b"blank ", b"n" * 255, b"-rf", "sch\u00f6n".encode())):
        path = os.path.join(os.fsencode(top / "odd names"), name)
        with open(path, "wb") as file:
            file.write(name)
        os.utime(path, ns=(0, (number * 1000 - 2000) * 10**15 + number))
    os.setxattr(top / "plain" / "text", "user.note", b"kept\0too")
    os.setxattr(top / "modes", "user.of.directory", b"yes")
    for directory, _, _ in os.walk(top, topdown=False):
        os.utime(directory, ns=(0, _DIRECTORY_TIME_NS))


def _make_many(top: Path) -> None:
    top.mkdir()
    for number in range(MANY):
        (top / f"entry{number:04}").write_text(f"{number}\n")


def _make_python(top: Path) -> None:
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    library = Path(sysconfig.get_path("stdlib", vars={"installed_base": sys.base_prefix, "base": sys.base_prefix}))
    target = top / "lib" / version
    target.mkdir(parents=True)
    for path in library.glob("*.py"):
        shutil.copy2(path, target)
    for name in PACKAGES:
        if (library / name).is_dir():
            shutil.copytree(library / name, target / name)
    shutil.copytree(library / "lib-dynload", target / "lib-dynload", ignore=shutil.ignore_patterns("*test*"))
    (top / "bin").mkdir()
    shutil.copy2(os.path.realpath(sys.executable), top / "bin" / "python3")
    shared = Path(sysconfig.get_config_var("LIBDIR") or "") / (sysconfig.get_config_var("INSTSONAME") or "")
    if shared.is_file() and ".so" in shared.name:
        shutil.copy2(shared, top / "lib")


def _make_tools(top: Path) -> None:
    """The programs that gcc calls, what it always links, and the headers of a small program."""
    top.mkdir()
    shutil.copy2(os.path.realpath(shutil.which("gcc") or "gcc"), top / "gcc")
    for name in ("cc1", "collect2", "as", "ld"):
        found = _said("gcc", f"-print-prog-name={name}")
        shutil.copy2(os.path.realpath(shutil.which(found) or found), top / name)
    plugin = Path(_said("gcc", "-print-file-name=liblto_plugin.so"))
    if plugin.is_file():
        shutil.copy2(plugin, top)
    linked = Path(_said("gcc", "-print-libgcc-file-name")).parent
    for path in (*linked.glob("crt*.o"), *linked.glob("libgcc*")):
        shutil.copy2(path, top)
    (top / "hello.c").write_text(HELLO)
    rule = _said("gcc", "-O1", "-M", str(top / "hello.c")).replace("\\\n", " ")
    for word in rule.split()[2:]:
        copy = top / "include" / word.lstrip("/")
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(word, copy)


def include_directories(tools: Path) -> list[str]:
    """Where the copied headers are, in the compiler's order."""
    lines = subprocess.run(
        ["gcc", "-E", "-v", "-x", "c", os.devnull], capture_output=True, text=True, check=True
    ).stderr.splitlines()
    begin, end = (next(i for i, line in enumerate(lines) if text in line) for text in ("<...>", "End of search"))
    copies = [tools / "include" / os.path.normpath(line.strip()).lstrip("/") for line in lines[begin + 1 : end]]
    return [str(copy) for copy in copies if copy.is_dir()]


def _make_programs(top: Path) -> None:
    top.mkdir()
    (top / "hello.c").write_text(HELLO)
    subprocess.run(["gcc", "-o", str(top / "hello"), str(top / "hello.c")], check=True)
    script = top / "script"
    script.write_text('#!/bin/sh\necho "script $1" && exec "$(dirname "$0")/hello"\n')
    script.chmod(0o755)


def _make_work_tree(top: Path) -> None:
    top.mkdir()
    for number in range(50):
        path = top / f"module{number % 7}" / f"file{number}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"content {number}\n" * 20)
    for words in (
        ("init", "-q", "-b", "main"),
        ("add", "."),
        ("-c", "user.name=A", "-c", "user.email=a@example.org", "commit", "-q", "-m", "first"),
        ("gc", "-q"),
    ):
        subprocess.run(["git", "-C", str(top), *words], check=True, env=git_environment())


def git_environment() -> dict[str, str]:
    """Nothing of the machine's settings, and work trees may be of anybody."""
    return {
        **os.environ,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "safe.directory",
        "GIT_CONFIG_VALUE_0": "*",
    }


def _said(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
