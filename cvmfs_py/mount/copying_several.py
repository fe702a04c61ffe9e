"""Copies several files and trees out of a repository into one directory, by the rules of cp.

What cannot be copied is in the report, and the others are copied all the same. Two copies never have the same place.

Concurrency: the files are copied side by side, the trees one after the other; each does its own work in parallel.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import trio

from catalog.errors import show_path
from cvmfs_py.errors import FsError
from cvmfs_py.mount.concurrency import first_error
from cvmfs_py.mount.copying import DAMAGES, copied_name, copy_out

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cvmfs_py.mount.copying import CopyReport, CopyRequest, Observer
    from cvmfs_py.mount.repository import Repository


async def copy_several(
    repository: Repository,
    sources: Sequence[bytes],
    request: CopyRequest,
    observer: Observer,
    report: CopyReport,
    taken: dict[bytes, str],
) -> None:
    """Copies each source into the directory of the request, which exists. `taken`: names there, and who has them."""
    trees: list[CopyRequest] = []
    limit = trio.CapacityLimiter(request.jobs)
    with first_error():
        async with trio.open_nursery() as nursery:
            for source in sources:
                one = replace(request, source=source, inside=True)
                try:
                    start = await repository.resolve(source)
                except (FsError, *DAMAGES) as error:
                    report.failures.append(str(error))
                    continue
                name = copied_name(repository, source, start)
                shown = f"{repository.fqrn}:{show_path(source)}"
                if name in taken:
                    report.failures.append(
                        f"{shown} would take the place of the copy of {taken[name]}: copy it to another directory"
                    )
                    continue
                taken[name] = shown
                if start.entry.is_directory:
                    trees.append(one)
                    continue
                await limit.acquire_on_behalf_of(one)
                nursery.start_soon(_copy_file, repository, one, observer, report, limit)
    for one in trees:
        await _copy(repository, one, observer, report)


async def _copy_file(
    repository: Repository, request: CopyRequest, observer: Observer, report: CopyReport, limit: trio.CapacityLimiter
) -> None:
    try:
        await _copy(repository, request, observer, report)
    finally:
        limit.release_on_behalf_of(request)


async def _copy(repository: Repository, request: CopyRequest, observer: Observer, report: CopyReport) -> None:
    try:
        await copy_out(repository, request, observer, report)
    except (FsError, *DAMAGES) as error:
        report.failures.append(str(error))
