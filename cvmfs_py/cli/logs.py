"""`cvmfs-py logs`: what the daemons of mounts have written to their log files, also those that have ended."""

from __future__ import annotations

import os
import re
import select
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cvmfs_py.cli import options as common
from cvmfs_py.cli.output import one_line, write_line
from cvmfs_py.errors import CvmfsError, MountError, UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from cvmfs_py.mount.log_files import LogFile
    from cvmfs_py.mount.process_id import ProcessId

LINES = 20
_PAUSE_MS = 300
_TRACEBACKS = b"cvmfs-py.log"  # of commands, not of a daemon


@dataclass(frozen=True, slots=True)
class _Source:
    """The log of one mount."""

    path: bytes
    daemon: ProcessId | None  # None: it has ended


def build_parser(prog: str) -> argparse.ArgumentParser:
    parser = common.new_parser(
        prog,
        "Show the last lines that the daemons of mounts have logged. A mount that has ended is found by its mountpoint"
        " or its repository, as long as its log is there. With nothing named it is about all mounts of this user or,"
        " when nothing is mounted, about the log that was written last.",
        "cvmfs-py logs sft.cern.ch",
        more=("cvmfs-py logs -f", "cvmfs-py logs -n 100 /cvmfs/sft.cern.ch"),
    )
    parser.add_argument("mounts", metavar="MOUNT", nargs="*", help="a mountpoint, or the FQRN of what is mounted")
    parser.add_argument("-f", "--follow", action="store_true", help="go on with what is added, until the daemons end")
    parser.add_argument("-n", "--lines", metavar="N", default=str(LINES), help=f"so many lines of each log ({LINES})")
    return parser


def run(options: argparse.Namespace) -> int:
    from cvmfs_py.mount.log_files import LogFile

    text: str = options.lines
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise UsageError(f"-n {text}: write a number of lines")
    sources = _sources(options.mounts)
    with ExitStack() as held:
        opened: list[tuple[_Source, LogFile]] = []
        for source in sources:
            try:
                opened.append((source, held.enter_context(LogFile(source.path))))
            except OSError as error:
                _tell(f"{os.fsdecode(source.path)} cannot be read: {error.strerror}")
        if not opened:
            raise CvmfsError("there is no log to show")
        printer = _Printer(has_titles=len(opened) > 1)
        is_silent = int(text) > 0
        for _, log in opened:
            lines = log.last_lines(int(text))
            printer.show(log, lines)
            is_silent = is_silent and not lines
        if is_silent:
            _tell("nothing was logged: only warnings and errors are, unless it is mounted with --debug")
        if options.follow:
            _follow(opened, printer)
    return 0 if len(opened) == len(sources) else CvmfsError.exit_code


def _sources(names: Sequence[str]) -> list[_Source]:
    """Each log once."""
    from cvmfs_py.cli.mounts_chosen import chosen_mounts
    from cvmfs_py.mount.registry import MountState

    found: dict[bytes, _Source] = {}
    for each in [[name] for name in names] or [[]]:
        try:
            mounts = chosen_mounts(each)
        except MountError:
            mounts = []
        for mount in mounts:
            record = mount.record
            if record.log:
                found[record.log] = _Source(record.log, None if mount.state is MountState.BROKEN else record.process)
            else:
                _tell(f"{os.fsdecode(record.mountpoint)} has no log file: its daemon writes to its standard error")
        if not mounts:
            ended = _logs_of_ended(*each)
            if each and not ended:
                raise MountError(f"{each[0]} is not mounted by cvmfs-py, and no log of it is there; see cvmfs-py list")
            found |= {path: _Source(path, None) for path in ended if path not in found}
    return list(found.values())


def _logs_of_ended(name: str = "") -> list[bytes]:
    """The logs of a mountpoint, or of mountpoints that were called after a repository; without a name the last one."""
    from cvmfs_py.fuse.mountinfo import real_path
    from cvmfs_py.mount.daemon_log import log_directories, log_name

    of_place = {log_name(os.fsencode(place)) for place in (os.path.abspath(name), real_path(name)) if name}
    of_name = re.compile(rb"(?:.*-)?" + re.escape(log_name(os.fsencode(name))) + rb"\Z", re.DOTALL)
    found = []
    for directory in map(os.fsencode, log_directories(os.environ, os.geteuid())):
        try:
            files = sorted(os.listdir(directory))
        except OSError:
            continue
        for file in files:
            is_meant = not name or file in of_place or ("/" not in name and of_name.match(file) is not None)
            if is_meant and file.endswith(b".log") and file != _TRACEBACKS:
                found.append(os.path.join(directory, file))
    return found if name else sorted(found, key=_written_at)[-1:]


def _written_at(path: bytes) -> float:
    try:
        return os.lstat(path).st_mtime
    except OSError:
        return 0.0


class _Printer:
    """Writes lines; where there are several logs, with a title when it is another one's turn."""

    def __init__(self, *, has_titles: bool) -> None:
        self._has_titles = has_titles
        self._last: LogFile | None = None

    def show(self, log: LogFile, lines: Sequence[bytes]) -> None:
        if self._has_titles and log is not self._last and (lines or self._last is None):
            write_line((b"\n" if self._last is not None else b"") + b"==> " + log.path + b" <==")
            self._last = log
        for line in lines:
            write_line(line)


def _follow(opened: Sequence[tuple[_Source, LogFile]], printer: _Printer) -> None:
    """Until no daemon is left, or nobody reads any more."""
    reader = select.poll()
    reader.register(1, 0)  # what a pipe tells without being asked: that its reader has gone
    following = list(opened)
    while True:
        sys.stdout.flush()
        running = _running_daemons()
        ended = [(source, log) for source, log in following if source.daemon not in running]
        for _, log in following:  # after the question: the last words are there
            printer.show(log, log.new_lines())
        for source, log in ended:
            following.remove((source, log))
            sys.stdout.flush()
            _tell(f"the daemon that writes to {os.fsdecode(source.path)} has ended")
        if not following or reader.poll(_PAUSE_MS):
            return


def _running_daemons() -> set[ProcessId]:
    """Those whose records say so, which tells also of other pid namespaces."""
    from cvmfs_py.mount.registry import MountState, list_mounts

    mounts = list_mounts(os.environ, os.geteuid()).mounts
    return {each.record.process for each in mounts if each.state is not MountState.BROKEN}


def _tell(text: str) -> None:
    print(f"cvmfs-py logs: {one_line(text)}", file=sys.stderr)
