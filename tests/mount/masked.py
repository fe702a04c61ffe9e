"""Mounts over which the kernel and the channel agree on less than both can: what an older kernel would offer.

    with Masked(client, tmp_path / "mnt", LINUX_5_4) as top:      # as `Mounted`; `counts()` tells what was asked

The kernel does only what the answer to INIT agrees to, so what is not agreed to is as good as not offered. Run as a
program, this is `cvmfs-py mount -f` with other wishes of the kernel, which the command itself has no switch for.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from cvmfs_py import logs
from cvmfs_py.cli.mount import build_parser
from cvmfs_py.cli.options import request_of
from cvmfs_py.cli.session import wanted
from cvmfs_py.fuse.channel import Channel
from cvmfs_py.fuse.failures import Failures
from cvmfs_py.fuse.wire import NEWEST_MINOR, InitFlag
from cvmfs_py.fuse.wire_init import WANTED_FLAGS, Wishes
from cvmfs_py.mount.daemonize import ForegroundAnnouncer
from cvmfs_py.mount.opening import load_settings_of
from cvmfs_py.mount.session import MountPlan, Session
from tests.mount.mounting import Mounted
from tests.simulator.command import PROGRAM, ROOT, Running

if TYPE_CHECKING:
    from cvmfs_py.config.settings import Settings
    from tests.simulator.command import Client

TOLD_S = 20.0


@dataclass(frozen=True, slots=True)
class Profile:
    """What a kernel can do."""

    name: str
    minor: int = NEWEST_MINOR
    flags: InitFlag = WANTED_FLAGS

    def __str__(self) -> str:
        return self.name


def without(*flags: InitFlag) -> Profile:
    """The newest kernel that lacks these."""
    rest = WANTED_FLAGS
    for flag in flags:
        rest &= ~flag
    return Profile("without " + " ".join(str(flag.name) for flag in flags), flags=rest)


# By the version of the protocol; each flag came with the version that the notes of the kernel's header name.
_OF_7_31 = WANTED_FLAGS & ~(InitFlag.INIT_EXT | InitFlag.HAS_EXPIRE_ONLY)
LINUX_5_4 = Profile("Linux 5.4", 31, _OF_7_31)
LINUX_5_10 = Profile("Linux 5.10", 32, _OF_7_31)
LINUX_5_15 = Profile("Linux 5.15", 34, _OF_7_31)
LINUX_6_1 = Profile("Linux 6.1", 37, _OF_7_31 | InitFlag.INIT_EXT)
LINUX_6_6 = Profile("Linux 6.6", 39)
LINUX_6_12 = Profile("Linux 6.12", 41)
NEWEST = Profile("newest")


class Masked(Mounted):
    """A mount by such a kernel."""

    def __init__(self, client: Client, mountpoint: Path, profile: Profile, *options: str) -> None:
        super().__init__(client, mountpoint, *options)
        self._profile = profile
        self._told = client.directory / f"counts of {mountpoint.name}.json"

    def start(self) -> Running:
        words = self.client.command(*self.words())[len(PROGRAM) :]
        mask = [str(int(self._profile.flags)), str(self._profile.minor), str(self._told)]
        command = [sys.executable, "-W", "error", "-m", "tests.mount.masked", *mask, *words]
        environment = self.client.environment | {"PYTHONPATH": str(ROOT)}
        return Running([*self.wrapper, *command], self.client.directory, environment, subprocess.PIPE)

    def told(self) -> dict[str, Any]:
        """What the daemon knows of its kernel and its requests by now."""
        os.statvfs(self.mountpoint)  # what was sent before, and needs no answer, has arrived when this is answered
        self._told.unlink(missing_ok=True)
        self.process.send_signal(signal.SIGUSR2)
        end_s = time.monotonic() + TOLD_S
        while not self._told.exists():
            assert time.monotonic() < end_s, "the daemon tells nothing"
            time.sleep(0.002)
        return dict(json.loads(self._told.read_bytes()))

    def counts(self) -> Counter[str]:
        """The requests by now, without that for the counts, and those that the kernel sends when it likes."""
        requests = Counter(self.told()["requests"])
        for name in ("statfs", "forget", "batch_forget", "interrupt"):
            del requests[name]
        return requests


class MaskedSession(Session):
    """The mount of one repository, with an engine that wants less."""

    def __init__(self, plan: MountPlan, settings: Settings, wishes: Wishes) -> None:
        super().__init__(plan, settings, ForegroundAnnouncer())
        self._engine = self.channel = Channel(self._space, Failures(self._stats), wishes)

    async def tell_on_signal(self, place: Path) -> None:
        with trio.open_signal_receiver(signal.SIGUSR2) as signals:
            async for _ in signals:
                agreed = self.channel.agreed
                assert agreed is not None
                told = {
                    "requests": dict(self._stats.requests),
                    "minor": agreed.minor,
                    "flags": int(agreed.flags),
                    "kernel": agreed.offer.minor,
                    "offered": int(agreed.offer.flags),
                }
                draft = place.with_suffix(".draft")
                draft.write_text(json.dumps(told))
                draft.rename(place)


async def serve(plan: MountPlan, wishes: Wishes, place: Path) -> None:
    session = MaskedSession(plan, await load_settings_of(plan.wanted), wishes)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(session.tell_on_signal, place)
        await session.serve_mounted()
        nursery.cancel_scope.cancel()


def main() -> None:
    flags, minor, place, command, *words = sys.argv[1:]
    options = build_parser(command).parse_args(words)
    logs.start(debug=False)
    plan = MountPlan(wanted(request_of(options, options.repository)), options.mountpoint)
    trio.run(serve, plan, Wishes(flags=InitFlag(int(flags)), minor=int(minor)), Path(place))


if __name__ == "__main__":
    main()
