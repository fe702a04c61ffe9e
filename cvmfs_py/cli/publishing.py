"""What the commands that publish contents have in common: options, progress, and the summary of what was done."""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from catalog.errors import show_path
from cvmfs_py.cli.output import counted, size_text, write_json
from cvmfs_py.cli.publication_record import publication_record, publication_sentence
from cvmfs_py.config.target import normalise
from cvmfs_py.errors import PublishError, UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from cvmfs_py.cli.progress import Progress
    from cvmfs_py.publish.packed import FileRecipe
    from cvmfs_py.publish.publication import Publication
    from cvmfs_py.publish.settings import RepositorySettings
    from cvmfs_py.publish.tally import Tally

_SHOWN_WARNINGS = 20
_COUNTING_S = 3.0
INTERRUPTED = "nothing was published, and what is stored already need not be stored again by the same command"
_INTERRUPTED_LATE = "the same command tells whether this was published"


def add_publication_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("publication")
    group.add_argument("--tag", metavar="NAME", help="name the new revision")
    group.add_argument("-m", "--message", metavar="TEXT", default="", help="with --tag: what it is")
    group.add_argument(
        "--no-auto-tag", action="store_true", help="no automatic tag generic-TIME when there is no --tag"
    )
    group.add_argument(
        "--force",
        action="store_true",
        help="publish although nothing changed, or although the storage is older than what was published last",
    )
    group.add_argument(
        "--compression", metavar="NAME", help="of files that are new: zlib, none or zstd (default: as decided by init)"
    )
    group.add_argument("-j", "--jobs", metavar="N", type=int, help="so many processes compress (one for each core)")
    parser.add_argument("--json", action="store_true", help="the result as JSON")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress and no summary")


def add_delete_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--delete", metavar="PATH", action="append", default=[], help="remove this path before; repeatable"
    )


@contextmanager
def open_publication(options: argparse.Namespace) -> Iterator[Publication]:
    """The repository that the options name, and early what they could not have."""
    from cvmfs_py.publish.publication import Publication

    with Publication(options.storage, accept_older=options.force) as publication:
        if options.tag is not None:
            publication.check_new_tag(options.tag)
        yield publication


def check_publication_options(options: argparse.Namespace) -> None:
    """Refuses what makes no sense before anything is touched."""
    from cvmfs_py.publish.tags import check_tag_name

    if options.message and options.tag is None:
        raise UsageError("--message describes a tag: give --tag NAME with it")
    if options.tag is not None:
        check_tag_name(options.tag)
    if options.jobs is not None and options.jobs < 1:
        raise UsageError(f"{options.jobs} processes cannot compress: give at least 1 with --jobs")


def repository_path(text: str) -> bytes:
    """A path in the repository, with or without a slash at its beginning."""
    path = normalise(os.fsencode(text))
    if b".." in path.split(b"/"):
        raise UsageError(f"{text}: leave out '..', a path in a repository begins at its root")
    return path


def recipe_with(options: argparse.Namespace, settings: RepositorySettings, *, is_external: bool = False) -> FileRecipe:
    """How files are packed when the command line says something of it."""
    from cvmfs_py.publish.packed import recipe_of

    compression = options.compression or ("none" if is_external else settings.compression)
    # Whoever checks the settings checks the name.
    changed = dataclasses.replace(settings, compression=compression)
    return dataclasses.replace(recipe_of(changed), is_external=is_external)


def delete_paths(publication: Publication, paths: list[bytes]) -> int:
    """Removes what `--delete` names. A name that is not there is an error: it may be mistyped."""
    tree = publication.open_tree()
    for path in paths:
        if not tree.remove(path):
            raise PublishError(f"there is no {show_path(path)} to delete: nothing was published")
    return len(paths)


class Watcher:
    """Shows on a progress line what a publication counts, and how much of its source there is."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._is_archive = False

    def __call__(self, tally: Tally) -> None:
        progress = self._progress
        size_bytes = 0 if self._is_archive else tally.packed_bytes + tally.compared_bytes - progress.size_bytes
        progress.advance(size_bytes, tally.entries - progress.objects)

    def count_tree(self, top: str) -> None:
        """Looks how many entries there are, where somebody sees it and it takes no time worth mentioning."""
        if self._progress.is_drawn and (entries := count_entries(os.fsencode(top))) is not None:
            self._progress.expect(entries)

    def archive_read(self, read_bytes: int, size_bytes: int | None) -> None:
        """The bytes are those of the archive from now on, as it is stored."""
        progress = self._progress
        self._is_archive = True
        progress.expected_bytes = size_bytes or 0
        progress.advance(read_bytes - progress.size_bytes, objects=0)


def count_entries(top: bytes) -> int | None:
    """The entries of a local tree with its top; None where counting them takes too long, or something is amiss."""
    ends_s = time.monotonic() + _COUNTING_S
    count, waiting = 1, [top]
    while waiting:
        if time.monotonic() > ends_s:
            return None
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    count += 1
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(os.fsencode(entry.path))
        except OSError:
            return None  # whoever publishes it says what is wrong
    return count


def finish(
    options: argparse.Namespace, publication: Publication, tally: Tally, removed: int, progress: Progress
) -> None:
    """Commits, and tells."""
    progress.interrupted = progress.interrupted and _INTERRUPTED_LATE
    published = publication.commit(
        tag=options.tag,
        description=options.message,
        automatic_tag=not options.no_auto_tag,
        force=options.force,
    )
    progress.end()
    tell_warnings(publication)
    removed += tally.removed
    elapsed_s = progress.elapsed_s
    if options.json:
        counts = dataclasses.asdict(tally) | {"removed": removed}
        write_json(publication_record(published) | counts | {"elapsed_s": round(elapsed_s, 3)})
        return
    print(publication_sentence(published))
    if not options.quiet:
        rate = f", {size_text(tally.packed_bytes / max(elapsed_s, 1e-3))}/s" if tally.packed_bytes else ""
        print(
            f"{counted(tally.entries, 'entry', 'entries')} read, {tally.changed:,} changed, {removed:,} removed;"
            f" {counted(tally.packed_files, 'file')} with {size_text(tally.packed_bytes)} made"
            f" {counted(tally.new_objects, 'new object')} of {size_text(tally.stored_bytes)};"
            f" {elapsed_s:.1f} s{rate}"
        )


def tell_warnings(publication: Publication) -> None:
    for warning in publication.warnings:
        print(f"cvmfs-py: {warning}", file=sys.stderr)
    left_out = publication.tree_warnings
    for one in left_out[:_SHOWN_WARNINGS]:
        print(f"cvmfs-py: {show_path(one.path)}: {one.message}", file=sys.stderr)
    if len(left_out) > _SHOWN_WARNINGS:
        print(f"cvmfs-py: and {counted(len(left_out) - _SHOWN_WARNINGS, 'more warning')}", file=sys.stderr)
