"""Tar archives for tests, made by the standard library."""

from __future__ import annotations

import io
import tarfile
from typing import Any, BinaryIO


def entry(name: str, content: bytes | None = None, **values: Any) -> tuple[tarfile.TarInfo, bytes | None]:
    """A member for `archive_of`: a file, or what `type` says."""
    info = tarfile.TarInfo(name)
    info.mtime = 1_600_000_000
    info.size = len(content or b"")
    for key, value in values.items():
        setattr(info, key, value)
    return info, content


def directory(name: str, **values: Any) -> tuple[tarfile.TarInfo, bytes | None]:
    return entry(name, type=tarfile.DIRTYPE, mode=0o755, **values)


def symlink(name: str, target: str) -> tuple[tarfile.TarInfo, bytes | None]:
    return entry(name, type=tarfile.SYMTYPE, linkname=target)


def hard_link(name: str, target: str) -> tuple[tarfile.TarInfo, bytes | None]:
    return entry(name, type=tarfile.LNKTYPE, linkname=target)


def archive_of(*entries: tuple[tarfile.TarInfo, bytes | None], form: int = tarfile.PAX_FORMAT) -> BinaryIO:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form) as archive:
        for info, content in entries:
            archive.addfile(info, None if content is None else io.BytesIO(content))
    stream.seek(0)
    return stream
