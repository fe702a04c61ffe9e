"""What is mounted already and may stand in the way: dead mounts, those that do not answer, those of other programs.

Judges what was found, and asks nobody. Pure.
"""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING

from cvmfs_py.fuse.mountpoint import TOP, Life
from cvmfs_py.mount.diagnosis import Check, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cvmfs_py.mount.registry import ListedMount
    from cvmfs_py.mount.unrecorded import UnrecordedMount

_NAME = "mounts"


def judge_mounts(
    listed: Iterable[ListedMount], lives: Mapping[str, Life], others: Iterable[UnrecordedMount], fqrn: str
) -> Check:
    """`fqrn`: what somebody wants to mount; what is at its place is told even when it is well."""
    wrong: list[str] = []
    well: list[str] = []
    cures: list[str] = []
    ours = [(os.fsdecode(each.record.mountpoint), each.record.fqrn) for each in listed]
    for place, name in ours:
        _judge_own(place, name, lives[place], wrong, well, cures)
    for other in others:
        if other.is_ours:
            _judge_own(other.mountpoint, other.fqrn, other.life, wrong, well, cures)
            continue
        text = f"{other.program} has mounted {other.mountpoint}"
        if other.life is not Life.ALIVE:
            wrong.append(f"{text}, and {'is gone' if other.life is Life.DEAD else 'does not answer'}")
            cures.append(f"as who mounted it: umount -l {shlex.quote(other.mountpoint)}")
        elif fqrn and other.mountpoint in (TOP, f"{TOP}/{fqrn}"):
            wrong.append(text)
            cures.append(f"use what is there, or umount {shlex.quote(other.mountpoint)}, or name another mountpoint")
        else:
            well.append(text)
    if wrong:
        return Check(_NAME, Outcome.WARNING, "; ".join(wrong), "; ".join(cures))
    return Check(_NAME, Outcome.OK, "; ".join(well) or "no repository is mounted")


def _judge_own(place: str, fqrn: str, life: Life, wrong: list[str], well: list[str], cures: list[str]) -> None:
    name = "every repository" if fqrn == "*" else fqrn
    if life is Life.ALIVE:
        well.append(f"{name} is mounted at {place}")
        return
    wrong.append(f"the daemon of {name} at {place} {life.value}")
    cures.append(f"cvmfs-py umount {shlex.quote(place)}")
