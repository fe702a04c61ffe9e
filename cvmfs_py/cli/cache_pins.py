"""`cvmfs-py cache pin`, `unpin` and `pins`: what is to stay in the cache; `mount.pinning` does the work."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from cvmfs_py.cli import options as common
from cvmfs_py.cli.output import counted, one_line, size_text, write_json, write_line
from cvmfs_py.errors import CvmfsError, UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from cache.reports import NamedPin
    from cache.store import Store
    from cvmfs_py.cli.progress import Progress
    from cvmfs_py.mount.pinning import FetchReport, PinnedTree, RoomForPins
    from cvmfs_py.mount.repository import Repository
    from cvmfs_py.mount.totals import Totals

SHOWN_FAILURES = 20
INTERRUPTED = "what is here stays, and the same command goes on; `cvmfs-py cache pins` shows how far it is"


def targets_of(options: argparse.Namespace) -> list[str]:
    """What the command line names, and the lines of a list file."""
    targets: list[str] = list(options.targets)
    if options.from_file is not None:
        targets += _read_list(options.from_file)
    if not targets:
        raise UsageError(
            f"{options.action} what? Write REPO:PATH, for example sft.cern.ch@v1:/lcg/releases/ROOT, or give a list"
            " with --from-file"
        )
    return list(dict.fromkeys(targets))


def _read_list(file: str) -> list[str]:
    try:
        if file == "-":
            data = sys.stdin.buffer.read()
        else:
            with open(file, "rb") as stream:
                data = stream.read()
    except OSError as error:
        raise UsageError(f"cannot read the list {file}: {error.strerror}") from error
    lines = [line.rstrip(b"\r") for line in data.split(b"\n")]
    return [os.fsdecode(line) for line in lines if line.strip() and not line.startswith(b"#")]


def pin(options: argparse.Namespace) -> int:
    from cvmfs_py.cli.progress import Progress
    from cvmfs_py.cli.session import run_together

    targets = targets_of(options)
    quiet = options.quiet or options.json
    with Progress("listed", quiet=quiet, interrupted="" if options.quiet else INTERRUPTED) as progress:
        pinning = _Pinning(progress, is_single=len(targets) == 1)
        code = run_together(options, targets, pinning.pin)
    if options.json:
        write_json(pinning.records)
    return code


class _Pinning:
    """The pins of one command line."""

    def __init__(self, progress: Progress, *, is_single: bool) -> None:
        self._progress = progress
        self._is_single = is_single
        self.records: list[dict[str, Any]] = []

    async def pin(self, repository: Repository, paths: Sequence[bytes], options: argparse.Namespace) -> None:
        from cvmfs_py.mount.pinning import fetch_tree, measure_room
        from cvmfs_py.mount.totals import totals_told

        progress = self._progress
        progress.begin("listed")
        failures: list[str] = []
        with totals_told(repository, paths, progress, _listed_of, is_watched=progress.is_drawn):
            trees = await self._list(repository, paths, failures)
        if trees:
            self._warn(measure_room(repository.store, trees), str(repository.settings.cache_dir))
        progress.begin("pinned")
        for tree in trees:
            progress.expect(tree.objects, sum(ref.size_bytes or 0 for ref in tree.refs.values()))
        for tree in trees:
            report = await fetch_tree(repository, tree, progress)
            failures += report.failures
            self._tell(tree, report, options)
        if len(failures) == 1 and self._is_single:
            raise CvmfsError(f"{failures[0]}; the pin is incomplete, and the same command tries the rest again")
        progress.hide()
        for failure in failures[:SHOWN_FAILURES]:
            print(f"cvmfs-py: {one_line(failure)}", file=sys.stderr)
        if failures:
            more = f", {len(failures) - SHOWN_FAILURES:,} of them not shown" if len(failures) > SHOWN_FAILURES else ""
            raise CvmfsError(
                f"{counted(len(failures), 'failure')}{more}; what is incomplete is tried again by the same command"
            )

    async def _list(self, repository: Repository, paths: Sequence[bytes], failures: list[str]) -> list[PinnedTree]:
        from cvmfs_py.errors import FsError
        from cvmfs_py.mount.pinning import list_tree

        trees = []
        for path in paths:
            try:
                trees.append(await list_tree(repository, path, self._progress))
            except FsError as error:  # a path that is wrong; others may be right
                if self._is_single:
                    raise
                failures.append(str(error))
        return trees

    def _warn(self, room: RoomForPins, directory: str) -> None:
        warnings = []
        if room.exceeds_limit and room.limit_bytes is not None:
            warnings.append(
                f"{size_text(room.pinned_bytes)} are going to be pinned, and the limit of the cache is"
                f" {size_text(room.limit_bytes)}: it grows beyond that, and nothing else stays in it for long; raise"
                " CVMFS_QUOTA_LIMIT, or let go of a pin with `cvmfs-py cache unpin`"
            )
        if room.exceeds_disk and room.available_bytes is not None:
            warnings.append(
                f"{size_text(room.missing_bytes)} are still to be fetched, and the disk of {directory} has room for"
                f" {size_text(room.available_bytes)}: free some space there, or choose another one with --cache-dir"
            )
        self._progress.hide()
        for warning in warnings:
            print(f"cvmfs-py: {one_line(warning)}", file=sys.stderr)

    def _tell(self, tree: PinnedTree, report: FetchReport, options: argparse.Namespace) -> None:
        self.records.append(
            {
                "label": tree.label,
                "complete": not report.failures,
                "objects": tree.objects,
                "size_bytes": tree.size_bytes,
                "kept_objects": report.kept_objects,
                "failed_objects": len(report.failures),
            }
        )
        if options.quiet or options.json or report.failures:
            return
        kept = report.kept_objects - tree.catalogs
        before = f", {kept:,} {'was' if kept == 1 else 'were'} here already" if kept > 0 else ""
        self._progress.hide()
        what = f"{counted(tree.objects, 'object')} with {size_text(tree.size_bytes)}"
        print(f"pinned {one_line(tree.label)}: {what}{before}", file=sys.stderr)


def _listed_of(totals: Totals) -> tuple[int, int]:
    return totals.entries, 0


def unpin(store: Store, options: argparse.Namespace) -> None:
    targets = targets_of(options)
    unknown: list[str] = []
    for target in targets:
        label, is_gone = _let_go(store, options, target)
        if is_gone:
            print(f"unpinned {one_line(label)}")
        else:
            unknown.append(label)
    if unknown:
        sys.stdout.flush()
        names = ", ".join(unknown[:SHOWN_FAILURES])
        raise UsageError(f"nothing is pinned as {names}; `cvmfs-py cache pins` lists the pins")


def _let_go(store: Store, options: argparse.Namespace, target: str) -> tuple[str, bool]:
    """What the target means as the label of a pin, and whether there was one, which is gone now."""
    from cvmfs_py.config.load import resolve_fqrn
    from cvmfs_py.mount.pinning import pin_label, pin_name

    if store.unpin(pin_name(target)):
        return target, True
    request = common.request_of(options, target)
    fqrn = resolve_fqrn(
        request.target.name,
        environment=os.environ,
        config_files=request.config_files,
        overrides=request.overrides,
    )
    snapshot = request.overrides.get("CVMFS_REPOSITORY_TAG") or request.overrides.get("CVMFS_ROOT_HASH")
    label = pin_label(fqrn, snapshot, request.target.path)
    return label, store.unpin(pin_name(label))


def pins(store: Store, options: argparse.Namespace) -> None:
    found = store.named_pins()
    if options.json:
        write_json([pin_record(store, each) for each in found])
        return
    for each in sorted(found, key=lambda each: each.label):
        write_line(f"{one_line(each.label)}: {pin_state(store, each)}".encode("utf-8", "surrogateescape"))
    if not found:
        print("nothing is pinned", file=sys.stderr)


def pin_record(store: Store, pin: NamedPin) -> dict[str, Any]:
    held = store.held(pin.hashes)
    return {
        "name": pin.name,
        "label": pin.label,
        "complete": pin.is_complete and held.objects == len(pin.hashes),
        "objects": len(pin.hashes),
        "size_bytes": pin.size_bytes,
        "held_objects": held.objects,
        "held_bytes": held.size_bytes,
    }


def pin_state(store: Store, pin: NamedPin) -> str:
    """How much of it is here, for people."""
    held = store.held(pin.hashes)
    if not pin.hashes:
        return "incomplete, interrupted before it was listed; the same `cvmfs-py cache pin` goes on"
    if held.objects == len(pin.hashes):
        return f"{counted(held.objects, 'object')} with {size_text(held.size_bytes)}"
    size = size_text(held.size_bytes) + ("" if pin.size_bytes is None else f" of {size_text(pin.size_bytes)}")
    return (
        f"incomplete, {held.objects:,} of {counted(len(pin.hashes), 'object')}, {size};"
        " the same `cvmfs-py cache pin` goes on"
    )
