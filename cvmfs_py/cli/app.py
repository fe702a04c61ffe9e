"""The command line as a whole: finds the command, runs it, turns every error into one line and an exit code.

Commands live in modules of their own that are imported only when named, because imports are most of a warm start.
"""

from __future__ import annotations

import gc
import importlib
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cvmfs_py import __version__
from cvmfs_py.cli import colours
from cvmfs_py.cli.waiting_line import WAITING_LINE

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

EXIT_OK = 0
EXIT_USAGE = 2
EXIT_FAILURE = 5
EXIT_INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Command:
    """A command's module (with `build_parser` and `run`) and its line in the overview."""

    module: str
    summary: str


COMMANDS = {
    "mount": Command("cvmfs_py.cli.mount", "mount a repository"),
    "umount": Command("cvmfs_py.cli.umount", "unmount it again"),
    "list": Command("cvmfs_py.cli.list", "list what is mounted"),
    "status": Command("cvmfs_py.cli.status", "show how mounts are: revision, servers, hit rate, last errors"),
    "logs": Command("cvmfs_py.cli.logs", "show what the daemons of mounts have logged"),
    "exec": Command("cvmfs_py.cli.exec", "run a command that has repositories below /cvmfs, without any rights"),
    "shell": Command("cvmfs_py.cli.shell", "the same with a shell"),
    "ls": Command("cvmfs_py.cli.ls", "list a directory, or a whole tree, of a repository"),
    "stat": Command("cvmfs_py.cli.stat", "show everything known about entries"),
    "cat": Command("cvmfs_py.cli.cat", "print files"),
    "cp": Command("cvmfs_py.cli.cp", "copy files or trees to a local directory"),
    "find": Command("cvmfs_py.cli.find", "find entries of a repository by name, kind, size or age"),
    "du": Command("cvmfs_py.cli.du", "show how large directories of a repository are"),
    "diff": Command("cvmfs_py.cli.diff", "list what changed from one snapshot to another"),
    "tags": Command("cvmfs_py.cli.tags", "list the snapshots of a repository"),
    "info": Command("cvmfs_py.cli.info", "show revision, signatures, servers and contents in numbers"),
    "verify": Command("cvmfs_py.cli.verify", "check a repository from the master key to the last byte"),
    "serve": Command("cvmfs_py.cli.serve", "serve repository directories over HTTP"),
    "cache": Command("cvmfs_py.cli.cache", "look after the local cache"),
    "config": Command("cvmfs_py.cli.config", "show and check the configuration"),
    "doctor": Command("cvmfs_py.cli.doctor", "find out why a mount does not work here"),
    "repo": Command("cvmfs_py.cli.repo", "make repositories of your own and publish to them"),
    "example": Command("cvmfs_py.cli.example", "print examples for other programs: systemd, fstab, nginx, containers"),
    "demo": Command("cvmfs_py.cli.demo", "show the whole way on a small repository of its own"),
}
REFERENCE_PROGRAMS = ("mount.cvmfs", "cvmfs2")  # of the reference client: they have options and codes of their own
WORDS_BEHIND = frozenset({"exec"})  # commands that run what stands behind a --


def overview(width: int = 80) -> str:
    from cvmfs_py.cli.parser import fill

    name_width = max(map(len, COMMANDS))
    return "\n".join(
        fill(line, width)
        for line in (
            "usage: cvmfs-py COMMAND [OPTIONS] ...",
            "",
            "Mounts, reads and makes CernVM-FS repositories, verified from the master key down to the last byte.",
            "",
            "commands:",
            *(f"  {name:<{name_width}}  {command.summary}" for name, command in COMMANDS.items()),
            "",
            "options:",
            "  -h, --help  show this help; `cvmfs-py COMMAND --help` tells about a command",
            "  --version   show the version",
            "",
            "example: cvmfs-py mount sft.cern.ch /cvmfs/sft.cern.ch",
            "",
            "exit codes: 0 done, 2 wrong usage or configuration, 3 cannot mount, 4 not to be trusted, 5 anything else",
        )
    )


def run(arguments: Sequence[str]) -> int:
    """Runs one command; never raises but for defects of the interpreter itself."""
    if len(arguments) > 1 and arguments[0] == "help":
        arguments = (*arguments[1:], "--help")
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        from cvmfs_py.cli.parser import terminal_width

        print(overview(terminal_width()))
        return EXIT_OK if arguments else EXIT_USAGE
    if arguments[0] in ("-V", "--version", "version"):
        print(f"cvmfs-py {__version__}")
        return EXIT_OK
    name, *rest = arguments
    if name in REFERENCE_PROGRAMS:
        from cvmfs_py.cli import reference

        return reference.run_helper(rest) if name == "mount.cvmfs" else reference.run_cvmfs2(rest)
    command = COMMANDS.get(name)
    if command is None:
        import difflib

        close = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {close[0]}?" if close else "see cvmfs-py --help"
        print(f"cvmfs-py: there is no command {name!r}; {hint}", file=sys.stderr)
        return EXIT_USAGE
    return _run_command(name, command, rest)


def split_words(name: str, rest: list[str]) -> tuple[list[str], list[str]]:
    """What is for our parser, and what stands behind a -- for a program that is to be run."""
    if name not in WORDS_BEHIND or "--" not in rest:
        return rest, []
    position = rest.index("--")
    return rest[:position], rest[position + 1 :]


def _run_command(name: str, command: Command, rest: list[str]) -> int:
    module = importlib.import_module(command.module)
    parser: argparse.ArgumentParser = module.build_parser(f"cvmfs-py {name}")
    parser.set_defaults(command=name)
    rest, words = split_words(name, rest)
    colours.choose(colours.mode_of(rest))
    if words:
        parser.set_defaults(words=words)
    options = parser.parse_intermixed_args(rest)
    debug = bool(getattr(options, "debug", False))
    from cvmfs_py import logs

    logs.start(debug=debug)
    WAITING_LINE.begin(quiet=debug or bool(getattr(options, "quiet", False)))
    if not gc.isenabled():  # turned off while the program is loaded, which makes no garbage
        gc.freeze()
        gc.enable()
    try:
        code: int = module.run(options)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        return EXIT_OK  # the reader of our output has gone (`| head`): nothing to say
    except KeyboardInterrupt:
        WAITING_LINE.withdraw()
        return EXIT_INTERRUPTED
    except (Exception, BaseExceptionGroup) as error:  # noqa: BLE001  # the last guard: a user never sees a traceback
        from cvmfs_py.cli.failures import report

        return report(options.command, error)
