"""The daemon behind a command in namespaces of its own: serves the repositories that are mounted for it.

How namespaces, mounts and processes come to be is for `confinement`. Concurrency: a process of its own, with one event
loop at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from cvmfs_py.errors import MountError, UsageError
from cvmfs_py.mount.confinement import Place
from cvmfs_py.mount.engines import ONE_MOUNT_ENGINES
from cvmfs_py.mount.limits import raise_descriptor_limit
from cvmfs_py.mount.opening import load_settings_of
from cvmfs_py.mount.session import MountPlan, ended_by_signals, make_session, mount_options
from cvmfs_py.mount.waiting import start_telling

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cvmfs_py.config.settings import Settings
    from cvmfs_py.fuse.handover import Handover
    from cvmfs_py.mount.assemble import Wanted
    from cvmfs_py.mount.waiting import Line

DEVICE = "private"


class _Countdown:
    """Calls once all are ready."""

    def __init__(self, count: int, done: Callable[[], None]) -> None:
        self._count = count
        self._done = done

    def ready(self, message: str = "") -> None:
        del message
        self._count -= 1
        if not self._count:
            self._done()


class ConfinedDaemon:
    """Serves each repository at /cvmfs/FQRN; of one that is wanted more than once, those with a tag at FQRN@TAG.

    One wanted without a name is every repository: /cvmfs itself, in which each appears when it is asked for.
    """

    def __init__(
        self,
        wanted: Sequence[tuple[Wanted, str | None]],
        explain: Callable[[BaseException], tuple[str, int]],
        line: Line | None = None,
    ) -> None:
        """Each with the tag that was written behind its name. `explain` makes words and an exit code of an error.

        `line` shows what is waited for until all are ready.
        """
        self._wanted = wanted
        self.explain = explain
        self._line = line
        self._is_ready = False
        self._planned: list[tuple[MountPlan, Settings]] = []

    def plan(self) -> Sequence[Place]:
        raise_descriptor_limit()
        try:
            loaded = trio.run(self._load)
        finally:
            self._withdraw_line()
        engines = {settings.engine for settings in loaded}
        if len(loaded) > 1 and engines & ONE_MOUNT_ENGINES:
            raise UsageError("the engine pyfuse3 serves one repository only; use --engine channel")
        names = _names([settings.fqrn for settings in loaded], [tag for _, tag in self._wanted])
        places = []
        for name, settings, (wanted, _) in zip(names, loaded, self._wanted, strict=True):
            plan = MountPlan(wanted, f"/cvmfs/{name}".rstrip("/"), allow_other=True, device=DEVICE)
            self._planned.append((plan, settings))
            places.append(Place(name, mount_options(settings, plan)))
        return places

    def serve(self, handovers: Sequence[Handover], ready: Callable[[], None]) -> None:
        try:
            trio.run(self._serve, handovers, ready)
        finally:
            self._withdraw_line()

    async def _load(self) -> list[Settings]:
        self._start_telling()
        return [await load_settings_of(wanted) for wanted, _ in self._wanted]

    async def _serve(self, handovers: Sequence[Handover], ready: Callable[[], None]) -> None:
        def done() -> None:
            self._is_ready = True
            self._withdraw_line()
            ready()

        self._start_telling()
        announcer = _Countdown(len(handovers), done)
        async with ended_by_signals() as ending:
            async with trio.open_nursery() as nursery:
                for (plan, settings), taken in zip(self._planned, handovers, strict=True):
                    nursery.start_soon(make_session(plan, settings, announcer).serve_handed_over, taken)
            ending.cancel_scope.cancel()

    def _start_telling(self) -> None:
        if self._line is not None:
            start_telling(self._line.offer, lambda: not self._is_ready)

    def _withdraw_line(self) -> None:
        if self._line is not None:
            self._line.withdraw()


def _names(fqrns: Sequence[str], tags: Sequence[str | None]) -> list[str]:
    names: list[str] = []
    for fqrn, tag in zip(fqrns, tags, strict=True):
        name = f"{fqrn}@{tag.replace('/', '-')}" if tag is not None and fqrns.count(fqrn) > 1 else fqrn
        if name in names:
            raise MountError(f"{name} is named twice; give each a tag of its own: {fqrn}@TAG")
        names.append(name)
    return names
