"""SIGUSR1 makes a running mount tell what the kernel asked of it, and changes nothing."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING

import pytest

from tests.mount.mounting import Mounted, every_engine
from tests.simulator.command import Client
from tests.simulator.publisher import OwnRepository, write_tree

if TYPE_CHECKING:
    from pathlib import Path

FQRN = "counts.test.org"
pytestmark = pytest.mark.needs("mounting")


@every_engine
def test_counts_are_told_when_they_are_asked_for(engine: str, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    own = OwnRepository(tmp_path / "own", FQRN)
    write_tree(tmp_path / "tree", {"a": b"a\n", "b": b"b\n"})
    own.publish_directory(tmp_path / "tree")
    served = tmp_path / "www" / "cvmfs"
    served.mkdir(parents=True)
    (served / FQRN).symlink_to(own.storage)
    client = Client(tmp_path / "client", FQRN, [(tmp_path / "www").as_uri()], own.place.public_key_file)
    mounted = Mounted(client, tmp_path / "mnt", engine=engine)
    with mounted as top:
        assert (top / "a").read_bytes() == b"a\n"
        mounted.process.send_signal(signal.SIGUSR1)
        assert not os.path.lexists(top / "missing")  # answered after the signal was taken
        assert sorted(os.listdir(top)) == ["a", "b"]
    told = [line.partition("counts since the mount: ")[2] for line in mounted.errors.splitlines()]
    (counts,) = (json.loads(text) for text in told if text)
    assert counts["requests"]["lookup"] >= 1
    assert counts["requests"]["read"] == 1
    assert counts["local_operations"] >= 1
    now = counts["now"]
    assert now["lookups"] in (1, 3)  # `a`, and what was listed while the signal was on its way
    assert now["catalogs"] == 1
    assert now["pins"] == now["catalogs"] + now["kept_objects"]  # nothing else is open longer than it is used
    assert 0 <= now["kept_objects"] <= 1  # the file
    assert (now["waiting_requests"], now["downloads"]) == (0, 0)
    assert 5 < now["tasks"] < 30
