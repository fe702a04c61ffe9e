"""The engine that speaks the kernel's FUSE protocol itself, over the descriptor, without libfuse.

It reads requests until there are none, answers at once what is local, and starts a task only for what has to be fetched
or read from a cold disk. What the kernel can be allowed to answer by itself it is allowed to: names and attributes
without end, listings, links, opening and closing without a message.

Concurrency: one task receives; each request that waits has a task of its own, which INTERRUPT cancels. Notices are
written by a thread, because the kernel may hold what they need until a request is answered.
"""

from __future__ import annotations

import errno
import logging
import mmap
import os
import select
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from cache.errors import ObjectCorruptError
from cache.ref import NotLocal
from catalog.errors import CatalogError
from cvmfs_py.errors import FsError, MountError
from cvmfs_py.fuse import wire_replies as replies
from cvmfs_py.fuse import wire_requests as requests
from cvmfs_py.fuse.answers import METHODS, Served
from cvmfs_py.fuse.root_names import RootNames
from cvmfs_py.fuse.wire import UNANSWERED, InitFlag, Opcode, host_refusal
from cvmfs_py.fuse.wire_init import Negotiation, Wishes, negotiate, pack_init_reply, pack_version_reply, parse_init
from cvmfs_py.fuse.wire_notices import pack_inval_inode
from cvmfs_py.fuse.wire_requests import MalformedRequestError, Request
from cvmfs_py.vfs.facts import NotHashed
from cvmfs_py.vfs.namespace import NotAttached

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cvmfs_py.fuse.answers import Answer, Method
    from cvmfs_py.fuse.failures import Failures
    from cvmfs_py.fuse.volume import Space, Volume
    from cvmfs_py.vfs.inodes import Inode

_log = logging.getLogger(__name__)
AT_ONCE = 64  # requests answered before other tasks have their turn,
TURN_S = 5e-3  # and how long the engine may stay with one that asks again and again
AWAKE_S = 100e-6  # after an answer, waiting for the next request
LINGER_MS = 1  # after that, asleep
_ENDED = frozenset({errno.ENODEV, errno.ECONNABORTED, errno.ENOTCONN})
_AGAIN = frozenset({errno.EINTR, errno.ENOENT})  # ENOENT: the request was withdrawn while it was being read
_OBSTACLES = (NotLocal, NotAttached, NotHashed, ObjectCorruptError, CatalogError)  # what the driver can help with
_NAMES = {int(opcode): opcode.name.lower() for opcode in Opcode}


class Channel:
    """Serves a space of inodes over one descriptor. `wishes` is for tests of what older kernels can do."""

    def __init__(self, space: Space, failures: Failures, wishes: Wishes | None = None) -> None:
        refusal = host_refusal()
        if refusal is not None:
            raise MountError(f"{refusal}; use --engine pyfuse3")
        self._space = space
        self._failures = failures
        self._wishes = wishes or Wishes()
        self._agreed: Negotiation | None = None
        self._served: dict[int, Served] = {}  # by the identity of the volume
        self._waiting: dict[int, trio.CancelScope] = {}  # requests that are not answered yet
        self._waited_for: dict[int, int] = {}  # their inodes
        self._answered = trio.lowlevel.ParkingLot()  # for who waits until none of some inode is left
        self._fd = -1
        self._is_serving = False
        self._awake_s = AWAKE_S if len(os.sched_getaffinity(0)) > 1 else 0.0
        self._is_stopping = trio.Event()
        self._nursery: trio.Nursery

    async def serve(self, descriptor: int, options: Sequence[str]) -> None:
        self._fd = descriptor
        os.set_blocking(descriptor, False)
        self._is_serving = True
        try:
            async with trio.open_nursery() as self._nursery:
                self._nursery.start_soon(self._end_when_stopped)
                await self._receive(max(self._wishes.max_write_bytes + 4096, 2 * mmap.PAGESIZE))
                self._nursery.cancel_scope.cancel()
        finally:
            self._is_serving = False
            for served in self._served.values():
                served.contents.close()

    def stop(self) -> None:
        self._is_stopping.set()

    async def _end_when_stopped(self) -> None:
        await self._is_stopping.wait()
        self._nursery.cancel_scope.cancel()

    @property
    def agreed(self) -> Negotiation | None:
        """What the kernel and this engine go by; None before the kernel's first message."""
        return self._agreed

    @property
    def waiting_count(self) -> int:
        return len(self._waiting)

    @property
    def kept_count(self) -> int:
        return sum(len(served.contents) for served in self._served.values())

    def revision_changed(self, root: Inode) -> None:
        """What the kernel was told of the names in this root is taken back."""
        for served in self._served.values():
            at_once, locking = served.revision_changed(root)
            if at_once:
                self.notify(at_once)
            if locking:
                self.notify(locking, locked=root)

    def forget_volume(self, volume: Volume) -> None:
        served = self._served.pop(id(volume), None)
        if served is not None:
            served.contents.close()

    def notify(self, notices: Sequence[bytes], locked: int | None = None) -> None:
        """Tells the kernel something that it has not asked for. Notices about names lock their directory for it."""
        if self._is_serving and self._agreed is not None:
            self._nursery.start_soon(self._notify, notices, locked)

    async def _notify(self, notices: Sequence[bytes], locked: int | None) -> None:
        # Who waits for an answer about a directory may hold its lock. Were this process killed while a thread of it
        # waits for that lock, neither could ever end: the kernel would go on waiting for the answer.
        while locked is not None and locked in self._waited_for.values():
            await self._answered.park()
        await trio.to_thread.run_sync(self._write_notices, notices)

    def _write_notices(self, notices: Sequence[bytes]) -> None:
        for notice in notices:
            try:
                os.write(self._fd, notice)
            except OSError as error:
                if error.errno not in (errno.ENOENT, *_ENDED):  # ENOENT: the kernel knows nothing of it
                    _log.warning("the kernel does not take a notice: %s", error.strerror)

    # --- receiving

    async def _receive(self, room_bytes: int) -> None:
        fd = self._fd
        arrival = select.poll()
        arrival.register(fd, select.POLLIN)
        while True:
            try:
                await trio.lowlevel.wait_readable(fd)
            except (OSError, trio.ClosedResourceError):
                return
            turn_ends_s = time.perf_counter() + TURN_S
            for _ in range(AT_ONCE):
                try:
                    message = os.read(fd, room_bytes)
                except BlockingIOError:
                    if self._waiting or not self._linger(arrival, turn_ends_s):
                        break
                    continue
                except OSError as error:
                    if error.errno in _AGAIN:
                        continue
                    if error.errno in _ENDED:
                        return
                    raise
                if not message:
                    return
                self.take(message)

    def _linger(self, arrival: select.poll, turn_ends_s: float) -> bool:
        """Whether there is a request soon: who was answered mostly asks again at once.

        To be woken takes some 30 us, and the way through the loop as much again. So what is likely to be asked for is
        prepared meanwhile, and a moment of waiting is spent awake, where that keeps no other program from its work.
        """
        awake_until_s = time.perf_counter() + self._awake_s
        while not arrival.poll(0):
            now_s = time.perf_counter()
            if now_s > turn_ends_s:
                return False
            if not any(self._ahead(served.prepare) for served in self._served.values()) and now_s > awake_until_s:
                return bool(arrival.poll(LINGER_MS))
        return True

    def _ahead(self, prepare: Callable[[], bool]) -> bool:
        """Does a little of what is likely to be asked for; whether there was anything to do."""
        try:
            return prepare()
        except Exception as error:  # noqa: BLE001  # the engine's guard: what nobody has asked for yet
            self._failures.errno_of("prepare", error)
            return False

    def take(self, message: bytes) -> None:
        """One message of the kernel: answered, or on its way to be. Raises nothing."""
        try:
            request = requests.parse_request(message)
            self._failures.stats.requests[_NAMES[request.opcode]] += 1
        except MalformedRequestError as error:
            self._refuse(error)
            return
        try:
            self._dispatch(request)
        except MalformedRequestError as error:
            self._refuse(error)
        except Exception as error:  # noqa: BLE001  # the engine's guard: what is answered at once
            self._fail(request, error)

    def _dispatch(self, request: Request) -> None:
        opcode = request.opcode
        if opcode == Opcode.READ:
            self._read(request)
        elif (method := METHODS.get(opcode)) is not None:
            self._answer(request, method)
        elif opcode == Opcode.FORGET:
            self._forget(request.ino, requests.parse_forget(request))
        elif opcode == Opcode.BATCH_FORGET:
            for ino, count in requests.parse_batch_forget(request):
                self._forget(ino, count)
        elif opcode == Opcode.INTERRUPT:
            scope = self._waiting.get(requests.parse_interrupt(request))
            if scope is not None:
                scope.cancel()
        elif opcode == Opcode.INIT:
            self._begin(request)
        elif opcode in (Opcode.DESTROY, Opcode.RELEASE, Opcode.RELEASEDIR):
            self._send(request, replies.pack_empty_reply(request.unique))
        elif opcode == Opcode.IOCTL:
            self._send_error(request.unique, errno.ENOTTY)
        elif opcode != Opcode.NOTIFY_REPLY:
            self._send_error(request.unique, errno.ENOSYS)  # the kernel does it itself, or does without from now on

    def _begin(self, request: Request) -> None:
        offer = parse_init(request)
        if self._agreed is not None:  # what everything was answered by until now stays as it is
            self._send(request, pack_init_reply(request.unique, self._agreed))
            return
        if offer.major > 7:
            self._send(request, pack_version_reply(request.unique))
            return
        if offer.refusal is not None:
            _log.error("%s", offer.refusal)
            self._send_error(request.unique, errno.EPROTO)
            return
        self._agreed = negotiate(offer, self._wishes, mmap.PAGESIZE)
        self._send(request, pack_init_reply(request.unique, self._agreed))

    def _forget(self, ino: int, count: int) -> None:
        try:
            volume = self._space.owner(ino)
        except FsError:
            return
        volume.files.forget(ino, count)

    # --- answering

    def _answer(self, request: Request, method: Method) -> None:
        if self._is_needless(request.opcode):
            self._send_error(request.unique, errno.ENOSYS)
            return
        if not self._space.is_ready:
            self._start(request, self._answer_when_ready, method)
            return
        served = self._served_by(request.ino)
        try:
            answer = served.volume.attempt(lambda open_object: method(served, request, open_object))
        except _OBSTACLES:
            self._start(request, self._answer_later, served, method)
        else:
            self._finish(request, served, answer)

    def _is_needless(self, opcode: int) -> bool:
        """Whether the kernel can do without asking this from now on."""
        if opcode not in (Opcode.OPEN, Opcode.OPENDIR) or self._agreed is None:
            return False
        flag = InitFlag.NO_OPEN_SUPPORT if opcode == Opcode.OPEN else InitFlag.NO_OPENDIR_SUPPORT
        return flag in self._agreed.flags

    def _read(self, request: Request) -> None:
        if not self._space.is_ready:
            self._start(request, self._read_when_ready)
            return
        served = self._served_by(request.ino)
        try:
            data = served.volume.attempt(lambda open_object: served.read_now(request, open_object))
        except _OBSTACLES:
            data = None
        if data is None:
            self._start(request, self._read_later, served)
        else:
            self._send(request, replies.pack_reply_head(request.unique, len(data)), data)
            self._ahead(served.contents.prepare)  # also without a quiet moment: a disk works while others compute

    async def _answer_when_ready(self, request: Request, method: Method) -> None:
        await self._space.ready()
        await self._answer_later(request, self._served_by(request.ino), method)

    async def _answer_later(self, request: Request, served: Served, method: Method) -> None:
        answer = await served.volume.run(lambda open_object: method(served, request, open_object))
        self._finish(request, served, answer)

    async def _read_when_ready(self, request: Request) -> None:
        await self._space.ready()
        await self._read_later(request, self._served_by(request.ino))

    async def _read_later(self, request: Request, served: Served) -> None:
        data = await served.read(request)
        self._send(request, replies.pack_reply_head(request.unique, len(data)), data)

    def _start(self, request: Request, work: Callable[..., object], *arguments: object) -> None:
        scope = trio.CancelScope()
        self._waiting[request.unique] = scope
        self._waited_for[request.unique] = request.ino
        self._nursery.start_soon(self._wait, request, scope, work, arguments)

    async def _wait(
        self, request: Request, scope: trio.CancelScope, work: Callable[..., object], arguments: tuple[object, ...]
    ) -> None:
        """Does what takes time, unless the process that waits for it was interrupted."""
        try:
            with scope:
                try:
                    await work(request, *arguments)  # type: ignore[misc]
                except MalformedRequestError as error:
                    self._refuse(error)
                except Exception as error:  # noqa: BLE001  # the engine's guard: what had to wait
                    self._fail(request, error)
        except trio.Cancelled:
            # The engine ends; the mount may live on, where somebody else has the descriptor, too.
            self._send_error(request.unique, errno.ENOTCONN)
            raise
        finally:
            if self._waiting.get(request.unique) is scope:
                del self._waiting[request.unique], self._waited_for[request.unique]
            self._answered.unpark_all()
        if scope.cancelled_caught:
            self._send_error(request.unique, errno.EINTR)

    def _served_by(self, ino: int) -> Served:
        volume = self._space.owner(ino)
        found = self._served.get(id(volume))
        if found is None:
            agreed = self._agreed if volume.times.are_taken_back else None
            found = self._served[id(volume)] = Served(volume, None if agreed is None else RootNames(agreed))
        return found

    # --- sending

    def _finish(self, request: Request, served: Served, answer: Answer) -> None:
        if self._send(request, answer.message) and answer.lookups:
            served.volume.files.remember(answer.ino, answer.lookups)
        if answer.is_outdated:  # the kernel adds it to what it keeps of the directory, after that was taken back
            self.notify([pack_inval_inode(request.ino)])

    def _refuse(self, error: MalformedRequestError) -> None:
        _log.debug("%s", error)
        if error.needs_answer:
            self._send_error(error.unique, error.errno)

    def _fail(self, request: Request, error: Exception) -> None:
        number = self._failures.errno_of(_NAMES[request.opcode], error)
        if request.opcode not in UNANSWERED:
            self._send_error(request.unique, number)

    def _send_error(self, unique: int, number: int) -> None:
        self._write(unique, (replies.pack_error_reply(unique, number),))

    def _send(self, request: Request, *parts: bytes | memoryview) -> bool:
        return self._write(request.unique, parts)

    def _write(self, unique: int, parts: Sequence[bytes | memoryview]) -> bool:
        """Whether the kernel took it: not when the request was withdrawn, or the mount has ended."""
        try:
            os.writev(self._fd, parts)
        except OSError as error:
            if error.errno not in (errno.ENOENT, *_ENDED):
                _log.error("the kernel does not take an answer: %s", error.strerror)
                with suppress(OSError):  # so that nobody waits for it for ever
                    os.write(self._fd, replies.pack_error_reply(unique, errno.EIO))
            return False
        return True
