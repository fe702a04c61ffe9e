"""A new revision, by kernels that can take back all names at once, let them expire one by one, or only drop them.

What kernels keep is told to be believed for no time at all (CVMFS_KCACHE_TIMEOUT), so whatever lasts is taken back by
nothing but notices. All are mounted at the same time, because each revision takes a second to be seen. The kernel of
this machine plays the older ones; what it cannot show is said in `test_negotiation`.
"""

from __future__ import annotations

import errno
import mmap
import os
import shutil
import stat
import subprocess
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.mount.masked import LINUX_5_4, LINUX_6_6, NEWEST, Masked
from tests.mount.test_live_mount import LIMIT_S, SAME_BYTES, Live, error_of, until
from tests.mount.test_negotiation import walk
from tests.simulator.web import Nginx

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.needs("mounting"),
    pytest.mark.needs("nginx"),
]
PROFILES = (NEWEST, LINUX_6_6, LINUX_5_4)
MANY = [f"name{number}".ljust(120, "-") for number in range(600)]  # in the root: more than are asked for at a time
REVISIONS = 3
# What a program does whose working directory changes: it goes on there, and then enters it anew.
IN_DIRECTORY = """
cat file; read _; cat file other; cat new 2>/dev/null; ls
cd ..; cat work/file; cd "$OLDPWD"; cat file new
"""


@pytest.fixture
def live(tmp_path: Path) -> Live:
    live = Live(tmp_path)
    live.write(same=bytes(SAME_BYTES), file_to_directory=b"file", directory_to_file__inner=b"inner", changed=b"first")
    live.write(deleted=b"gone soon", before__inner=b"moved", work__file=b"old ", work__other=b"still ", apart=b"x")
    live.write(nested__deep__file=b"n" * 50_000, inner__file=b"old", pair__a=b"0", pair__b=b"0")
    live.write(**{"nested__.cvmfscatalog": b"", "inner__.cvmfscatalog": b""})
    live.write(**dict.fromkeys(MANY, b"old"))
    (live.tree / "link").symlink_to("changed")
    shutil.copy("/bin/cat", live.tree / "program")
    live.publish()
    return live


class Watcher(threading.Thread):
    """Enters a directory again and again, in which two files are always published with the same content."""

    def __init__(self, top: Path, stopped: threading.Event) -> None:
        super().__init__()
        self._top = top
        self._stopped = stopped
        self.seen: list[int] = []
        self.wrong: list[str] = []

    def run(self) -> None:
        try:
            while not self._stopped.wait(0.01):
                fd = os.open(self._top / "pair", os.O_RDONLY)
                first, second = (self._read(fd, name) for name in ("a", "b"))
                os.close(fd)
                if first != second or (self.seen and first < self.seen[-1]):
                    self.wrong.append(f"{first} and {second} after {self.seen[-1:]}")
                self.seen.append(first)
        except OSError as error:
            self.wrong.append(str(error))

    @staticmethod
    def _read(directory: int, name: str) -> int:
        fd = os.open(name, os.O_RDONLY, dir_fd=directory)
        try:
            return int(os.read(fd, 100))
        finally:
            os.close(fd)


class Use:
    """A mount that is used in every way that the kernel remembers, before and after a new revision."""

    def __init__(self, mounted: Masked, held: ExitStack) -> None:
        self.mounted = mounted
        self.top = top = mounted.mountpoint
        walk(top)
        assert self._cost_of_a_walk() == 0
        self.absent = ("added", "after", "work/new", "pair/c")
        assert [error_of(top / name) for name in self.absent] == [errno.ENOENT] * 4
        assert os.readlink(top / "link") == "changed"
        self.kept, self.opened = (os.open(top / name, os.O_RDONLY) for name in ("nested/deep/file", "same"))
        for fd in (self.kept, self.opened):
            held.callback(os.close, fd)
        self.kept_ino = os.fstat(self.kept).st_ino
        os.posix_fadvise(self.opened, 0, 0, os.POSIX_FADV_DONTNEED)  # so that not all of it was read before
        assert os.read(self.opened, 100) == bytes(100)
        self.mapped = held.enter_context(mmap.mmap(self.opened, 0, access=mmap.ACCESS_READ))
        self.program = subprocess.Popen([top / "program"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.shell = subprocess.Popen(
            ["/bin/sh", "-c", IN_DIRECTORY], cwd=top / "work", stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for process in (self.program, self.shell):
            held.enter_context(process)
            held.callback(process.kill)
        assert self.shell.stdout is not None
        assert os.read(self.shell.stdout.fileno(), 4) == b"old "
        self.listing = held.enter_context(os.scandir(top))
        next(self.listing)

    def _cost_of_a_walk(self) -> int:
        """The least of some: the kernel may have had to forget something."""
        costs = []
        while len(costs) < 10 and 0 not in costs:
            before = self.mounted.counts()
            walk(self.top)
            costs.append((self.mounted.counts() - before).total())
        return min(costs)

    def check_new(self) -> None:
        """Everything is as it was published, at once."""
        top = self.top
        assert (top / "link").read_bytes() == b"other"
        assert os.readlink(top / "link") == "added"
        assert error_of(top / "deleted") == errno.ENOENT
        assert [error_of(top / name) for name in self.absent] == [None] * 4
        assert (top / "file_to_directory" / "inner").read_bytes() == b"inner"
        assert stat.S_ISREG(os.lstat(top / "directory_to_file").st_mode)
        assert (top / "directory_to_file").read_bytes() == b"file"
        assert error_of(top / "before") == errno.ENOENT
        assert (top / "after" / "inner").read_bytes() == b"moved"
        assert (top / "inner" / "file").read_bytes() == b"new"
        assert (top / "same").read_bytes() == b"\1" * SAME_BYTES
        assert subprocess.check_output([top / "program"]) == b"new program\n"

    def check_listing(self) -> None:
        """One that began before goes on as it was, and nothing of it stays with the kernel."""
        rest = {entry.name for entry in self.listing}
        assert len(rest.intersection(MANY)) >= len(MANY) - 1
        assert {(self.top / name).read_bytes() for name in MANY} == {b"new"}
        assert set(os.listdir(self.top)) >= {"added", "after", "apart"}

    def check_old(self) -> None:
        """What is in use goes on, also where it was not read before."""
        assert b"".join(iter(lambda: os.read(self.opened, 100_000), b"")) == bytes(SAME_BYTES - 100)
        assert self.mapped[:] == bytes(SAME_BYTES)
        output, _ = self.program.communicate(b"goes on\n", timeout=LIMIT_S)
        assert (output, self.program.returncode) == (b"goes on\n", 0)
        output, _ = self.shell.communicate(b"\n", timeout=LIMIT_S)
        assert output == b"old still file\nother\nnew new new file"

    def check_kept(self) -> None:
        """An unchanged nested catalog keeps its numbers, and what is in use of it its pages."""
        assert os.lstat(self.top / "nested" / "deep" / "file").st_ino == self.kept_ino
        reads = []
        while len(reads) < 3 and 0 not in reads:  # the pages may have been dropped for other reasons
            before = self.mounted.counts()
            with open(self.top / "nested" / "deep" / "file", "rb", buffering=0) as file:
                assert file.read(100_000) == b"n" * 50_000
            assert os.pread(self.kept, 100_000, 0) == b"n" * 50_000
            reads.append((self.mounted.counts() - before)["read"])
        assert reads[-1] == 0


def publish_changes(live: Live) -> None:
    live.write(changed=b"second", deleted=None, added=b"other", same=b"\1" * SAME_BYTES, inner__file=b"new")
    live.write(file_to_directory=None, work__file=b"new ", work__new=b"new file", pair__c=b"")
    live.write(file_to_directory__inner=b"inner", program=b"#!/bin/sh\necho new program\n", apart=b"y")
    live.write(**dict.fromkeys(MANY, b"new"))
    (live.tree / "program").chmod(0o755)
    shutil.rmtree(live.tree / "directory_to_file")
    live.write(directory_to_file=b"file")
    (live.tree / "before").rename(live.tree / "after")
    (live.tree / "link").unlink()
    (live.tree / "link").symlink_to("added")
    live.publish()


def test_a_new_revision(live: Live) -> None:
    stopped = threading.Event()
    with Nginx(live.root) as web, ExitStack() as mounts:
        all_mounted = []
        for number, profile in enumerate(PROFILES):
            client = live.client(web.url, f"client{number}").changed(KCACHE_TIMEOUT="0")
            all_mounted.append(Masked(client, live.directory / f"mnt{number}", profile))
            mounts.enter_context(all_mounted[-1])
        with ExitStack() as held:
            uses = [Use(mounted, held) for mounted in all_mounted]
            watchers = [Watcher(use.top, stopped) for use in uses]
            held.callback(stopped.set)
            for watcher in watchers:
                watcher.start()
            publish_changes(live)
            for use in uses:
                live.wait(use.top)
                # The attribute tells of the revision a moment before the notices are written.
                until(lambda use=use: (use.top / "changed").read_bytes() == b"second")  # type: ignore[misc]
                until(lambda use=use: error_of(use.top / "apart") is None)  # type: ignore[misc]
            for use in uses:
                use.check_new()
                use.check_listing()
                use.check_old()
                use.check_kept()
            for number in range(1, REVISIONS + 1):
                live.write(pair__a=b"%d" % number, pair__b=b"%d" % number)
                live.publish()
                live.wait(*(use.top for use in uses))
            for watcher in watchers:
                until(lambda watcher=watcher: watcher.seen[-1] == REVISIONS or bool(watcher.wrong))  # type: ignore[misc]
            stopped.set()
            for watcher in watchers:
                watcher.join(LIMIT_S)
            assert [watcher.wrong for watcher in watchers] == [[]] * len(watchers)
        for mounted in all_mounted:
            assert mounted.end() == 0
            assert mounted.errors == ""
