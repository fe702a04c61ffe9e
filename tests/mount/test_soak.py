"""A short soak of both engines, always with the same choices. Longer and other ones: `./dev soak`."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.mount.mounting import every_engine
from tests.mount.soak import Soak
from tests.mount.soak_daemon import Held, unexpected

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.needs("mounting")
SECONDS = 8.0
SEED = 1


@every_engine
def test_nothing_wrong_is_shown_and_nothing_is_left_behind(engine: str, tmp_path: Path) -> None:
    report = Soak(tmp_path, engine, SEED).run(SECONDS)
    assert not report.wrong, f"seed {SEED}\n{report}"
    assert report.done > 500, f"seed {SEED}\n{report}"
    assert report.chaos.total() > 10, f"seed {SEED}\n{report}"


@pytest.mark.parametrize(
    ("line", "is_expected"),
    [
        ("EIO at read: cannot fetch file /a (tried http://127.0.0.1:80/cvmfs/x: connection reset (2 times))", True),
        ("soak.test.org: a server answers again", True),
        ('counts since the mount: {"requests": {}}', True),
        ("EIO at read: an operation asked again for what it holds: catalog of /", False),
        ("EIO at read: cannot fetch file /a: 'NoneType' object has no attribute 'fd'", False),
        ("EIO at read: cannot fetch file /a: connection reset\nTraceback (most recent call last):", False),
        ("the kernel does not take an answer: Invalid argument", False),
    ],
)
def test_what_a_daemon_has_no_reason_to_say(line: str, is_expected: bool) -> None:
    assert list(unexpected(f"cvmfs-py: {line}\n")) == ([] if is_expected else [line])


def held(now: dict[str, int], objects: int = 9, threads: int = 3) -> Held:
    calm = {
        "waiting_requests": 0,
        "lookups": 0,
        "downloads": 0,
        "catalogs": 2,
        "kept_objects": 5,
        "pins": 7,
        "tasks": 8,
    }
    return Held(Counter(object=objects), 0, threads, calm | now, 8)


@pytest.mark.parametrize(
    ("found", "count"),
    [
        (held({}), 0),
        (held({"lookups": 1}), 1),
        (held({"waiting_requests": 1}), 1),
        (held({"downloads": 1}), 1),
        (held({"tasks": 10}), 0),
        (held({"tasks": 11}), 1),
        (held({"pins": 8}), 1),
        (held({}, objects=10), 1),
        (held({}, objects=8), 0),
        (held({}, objects=6), 1),
        (held({}, threads=100), 1),
        (held({"kept_objects": 500, "pins": 502}, objects=504), 1),
    ],
)
def test_what_a_mount_without_users_may_not_hold(found: Held, count: int) -> None:
    assert len(list(found.excess())) == count
