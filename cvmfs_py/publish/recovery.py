"""What a power failure during a publication may have left behind, and the removal of it.

Objects are not written through to the disk one by one: that happens once, before the manifest names them. So objects of
a publication that was cut off by a power failure may be there by name and not by content, and the next publication
would take them for good. A mark, made durable before the first object, tells that a publication was under way, and
whether the computer was started anew since; then the objects written since are verified. A publisher that was only
killed leaves whole objects.

Concurrency: only under the repository's lock.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from cache.address import ContentHash, Digester, Kind
from cvmfs_py.errors import PublishError
from cvmfs_py.publish.keys import sync_directory

if TYPE_CHECKING:
    from cvmfs_py.publish.storage import Storage

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_CLOCK_MARGIN_S = 3600  # a clock may be set while the computer starts
_BLOCK_BYTES = 1 << 20


def boot_id() -> str:
    """The same text until the computer is started anew; never the same where nobody knows."""
    try:
        return _BOOT_ID.read_text("ascii").strip()
    except OSError:
        return f"unknown-{time.time_ns()}"


def begin_writing(storage: Storage, mark: Path) -> int:
    """Leaves the mark; if there is one from before a restart, verifies first. The number of objects removed."""
    now_boot = boot_id()
    try:
        boot, _, since_text = mark.read_text("ascii").partition(" ")
    except FileNotFoundError:
        boot, since_text = now_boot, ""
    except (OSError, UnicodeDecodeError) as error:
        raise PublishError(f"{mark} cannot be read: {error}") from error
    if since_text and boot == now_boot:
        return 0
    removed = 0
    if boot != now_boot:
        since_s = int(since_text) if since_text.isdigit() else 0
        removed = _remove_damaged(storage, since_s - _CLOCK_MARGIN_S)
    # An empty mark, left by a full disk, would have everything verified.
    temporary = mark.with_name(f"{mark.name}.new")
    try:
        with open(temporary, "w", encoding="ascii") as file:
            file.write(f"{now_boot} {int(time.time())}")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, mark)
        sync_directory(mark.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise PublishError(f"{mark} cannot be written: {error.strerror}") from error
    return removed


def end_writing(mark: Path) -> None:
    """Everything that was written is on the disk."""
    mark.unlink(missing_ok=True)


def _remove_damaged(storage: Storage, since_s: int) -> int:
    removed = 0
    for content_hash, kind, _ in storage.objects():
        if storage.path(content_hash, kind).stat().st_mtime >= since_s and not _is_whole(storage, content_hash, kind):
            removed += storage.remove(content_hash, kind)
    return removed


def _is_whole(storage: Storage, content_hash: ContentHash, kind: Kind) -> bool:
    digester = Digester(content_hash.algorithm)
    with open(storage.open_stored(content_hash, kind), "rb", buffering=0) as file:
        while block := file.read(_BLOCK_BYTES):
            digester.update(block)
    return digester.content_hash() == content_hash
