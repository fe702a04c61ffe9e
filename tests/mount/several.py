"""Several mounts in one process, for a test: `python -m tests.mount.several MOUNTS`, a file of JSON by FQRN.

Each mount is [SERVER, KEY, CACHE, MOUNTPOINT]. Prints a line for each when it answers, and one when it has ended; ends
with the last of them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from cvmfs_py.mount.assemble import Wanted
from cvmfs_py.mount.daemonize import ForegroundAnnouncer
from cvmfs_py.mount.opening import load_settings_of
from cvmfs_py.mount.session import MountPlan, Session

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


async def serve(fqrn: str, server: str, key: str, cache: str, mountpoint: str) -> None:
    parameters = {"SERVER_URL": server, "PUBLIC_KEY": key, "PY_CACHE_DIR": cache, "HTTP_PROXY": "DIRECT"}
    wanted = Wanted(fqrn, {f"CVMFS_{name}": value for name, value in parameters.items()}, ())
    settings = await load_settings_of(wanted)
    session = Session(MountPlan(wanted, mountpoint), settings, ForegroundAnnouncer(), hears_signals=False)
    await session.serve_mounted()
    print(f"{fqrn} has ended", flush=True)


async def serve_all(mounts: Mapping[str, Sequence[str]]) -> None:
    async with trio.open_nursery() as nursery:
        for fqrn, words in mounts.items():
            nursery.start_soon(serve, fqrn, *words)


if __name__ == "__main__":
    trio.run(serve_all, json.loads(Path(sys.argv[1]).read_text()))
