"""A repository opened to be changed: locked, verified, cleaned up after publishers that died; and its publications.

What is put into the tree is for others. A publication is seen whole or not at all: objects, catalogs and tags are
stored under names of their own, and the last step replaces the manifest.

Concurrency: one publisher at a time for a repository; one thread.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from cache.address import Kind
from cvmfs_py.errors import PublishError
from cvmfs_py.numerals import counted
from cvmfs_py.publish import current as now_published
from cvmfs_py.publish import tags as tagging
from cvmfs_py.publish.databases import change_history, read_tags, reflog_is_current
from cvmfs_py.publish.keys import PublisherKeys
from cvmfs_py.publish.lock import PublisherLock
from cvmfs_py.publish.nesting import apply_nesting
from cvmfs_py.publish.place import find_place
from cvmfs_py.publish.recovery import begin_writing
from cvmfs_py.publish.sealing import own_certificate, seal
from cvmfs_py.publish.settings import load_settings
from cvmfs_py.publish.storage import DATA, TRANSACTIONS, Storage
from cvmfs_py.publish.tree import WritableTree
from cvmfs_py.trust.refusal import LIMIT_BYTES

if TYPE_CHECKING:
    import os
    from collections.abc import Collection, Iterable

    from cache.address import ContentHash
    from catalog.history import Tag
    from cvmfs_py.publish.attributes import TreeWarning
    from cvmfs_py.publish.tree import CommittedTree
    from cvmfs_py.trust.manifest import Manifest

_WORKDIR_PREFIX = "work-"
_METAINFO_SHOWN_BYTES = 65536


@dataclass(frozen=True, slots=True)
class PublishedRevision:
    """What is served after a publication. Not `is_new`: nothing had changed, and it was served before."""

    fqrn: str
    revision: int
    root_hash: ContentHash
    root_size_bytes: int
    timestamp_s: int
    tags: tuple[str, ...]  # named and automatic ones that were put
    is_new: bool


class Publication:
    """One publisher's turn. Use it as a context manager: leaving it lets the next one in, whatever happened.

    `warnings` is for people.
    """

    def __init__(self, directory: str | os.PathLike[str], *, accept_older: bool = False) -> None:
        """Locks and verifies. `accept_older`: go on although the storage is older than what was published last."""
        self.warnings: list[str] = []
        self.place = find_place(directory)
        self.storage = Storage(self.place.storage_directory)
        self._tree: WritableTree | None = None
        self._workdir = ""
        self._lock = PublisherLock(self.place.lock_file, self.place.fqrn)
        try:
            self.keys = PublisherKeys.load(self.place.keys_directory, self.place.fqrn)
            self.settings = load_settings(self.place.settings_file)
            self._record = now_published.read_record(self.place)
            current = now_published.load_current(self.place, self.storage, self.keys.master_public)
            self._check(current, accept_older)
            self.manifest: Manifest = current.manifest
            self._clean_up()
            if not reflog_is_current(self.storage, self.manifest):
                # A publisher ended between the last two renames. Who replicates the repository compares.
                self._seal(self.manifest)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Ends the turn. What was not committed is forgotten. Idempotent."""
        if self._tree is not None:
            self._tree.close()
            self._tree = None
        if self._workdir:
            shutil.rmtree(self._workdir, ignore_errors=True)
            self._workdir = ""
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- contents

    @property
    def tree_warnings(self) -> list[TreeWarning]:
        """What could not be published as it is in the source."""
        return [] if self._tree is None else self._tree.warnings

    def open_tree(self) -> WritableTree:
        """The tree that the next `commit` publishes."""
        if self._tree is None:
            self._tree = WritableTree(self.storage, self.settings, self.manifest.root_hash, self._workdir)
        return self._tree

    def commit(
        self, *, tag: str | None = None, description: str = "", automatic_tag: bool = True, force: bool = False
    ) -> PublishedRevision:
        """Publishes the tree. When nothing changed nothing is published, unless `force`d; a tag is put all the same."""
        tree = self.open_tree()
        apply_nesting(tree, self.storage, self.settings)
        if tree.is_changed or force:
            revision, timestamp_s = self._next_revision(), self._next_timestamp()
            committed = tree.commit(revision, timestamp_s, force=force)
            return self._publish(committed, revision, timestamp_s, tag, description, automatic_tag)
        if tag is not None:
            self.add_tag(tag, description)
        return _published(self.manifest, (tag,) if tag is not None else (), is_new=False)

    def roll_back(
        self, name: str = tagging.TRUNK_PREVIOUS, *, drop_later: bool = False, automatic_tag: bool = True
    ) -> PublishedRevision:
        """Publishes the contents of a tag as a new revision. `drop_later`: tags of later revisions are removed."""
        tags = self.tags()
        target = tagging.find_tag(tags, name)
        if target.root_hash == self.manifest.root_hash:
            raise PublishError(f"{name} is what is published now: there is nothing to roll back")
        dropped = [one.name for one in tags.values() if drop_later and one.revision > target.revision]
        revision, timestamp_s = self._next_revision(), self._next_timestamp()
        with WritableTree(self.storage, self.settings, target.root_hash, self._workdir) as tree:
            committed = tree.commit(revision, timestamp_s, force=True, previous=self.manifest.root_hash)
        if self._tree is not None:
            self._tree.close()
            self._tree = None
        return self._publish(committed, revision, timestamp_s, None, "", automatic_tag, dropped)

    # --- tags

    def tags(self) -> dict[str, Tag]:
        """All tags by name, the oldest revision first."""
        return read_tags(self.storage, self.manifest)

    def check_new_tag(self, name: str) -> None:
        """Refuses a name that `commit` would refuse, before the work."""
        tagging.refuse_existing(self.tags(), name)

    def add_tag(self, name: str, description: str = "", *, like: str = tagging.TRUNK) -> Tag:
        """Puts a tag on the revision of another one, by default the current one."""
        tags = self.tags()
        tagging.refuse_existing(tags, name)
        if like == tagging.TRUNK:
            target = tagging.head_tag(self.manifest, name)
            trunk = tags.get(tagging.TRUNK)
            if trunk is not None and trunk.root_hash == target.root_hash:
                target = trunk
        else:
            target = tagging.find_tag(tags, like)
        new = dataclasses.replace(target, name=name, description=description)
        self._change_tags(put=(new,))
        return new

    def remove_tags(self, names: Collection[str]) -> None:
        """Removes all of them or, when one of them cannot be, none."""
        tags = self.tags()
        for name in names:
            tagging.check_tag_name(name)
            tagging.find_tag(tags, name)
        self._change_tags(remove=names)

    def _change_tags(self, *, put: Iterable[Tag] = (), remove: Iterable[str] = ()) -> None:
        history = change_history(self.storage, self.manifest, self.settings, self._workdir, put=put, remove=remove)
        self._seal(dataclasses.replace(self.manifest, history_hash=history, timestamp_s=self._next_timestamp()))

    # --- the rest

    def set_metainfo(self, content: bytes) -> ContentHash:
        """Stores the description of the repository, a JSON object."""
        try:
            value = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise PublishError(f"the description is no JSON text: {error}") from error
        if not isinstance(value, dict):
            raise PublishError('the description must be a JSON object, such as {"administrator": "A. Name"}')
        if len(content) > LIMIT_BYTES:
            raise PublishError(f"the description has {len(content)} bytes; clients read at most {LIMIT_BYTES}")
        if len(content) > _METAINFO_SHOWN_BYTES:
            self.warnings.append(f"clients show only the first {_METAINFO_SHOWN_BYTES} bytes of the description")
        metainfo = self.storage.put_content(content, Kind.METAINFO, self.settings)
        if metainfo != self.manifest.metainfo_hash:
            following = dataclasses.replace(self.manifest, metainfo_hash=metainfo, timestamp_s=self._next_timestamp())
            self._seal(following)
        return metainfo

    def forget(self, hashes: Collection[ContentHash]) -> None:
        """Takes objects out of the reflog: before they are deleted."""
        self._seal(self.manifest, forget=hashes)

    # --- how

    def _check(self, current: now_published.Current, accept_older: bool) -> None:
        if not accept_older:
            now_published.refuse_older(current.manifest, self._record)
        warning = now_published.whitelist_warning(current.whitelist, time.time())
        if warning is not None:
            self.warnings.append(warning)
        if self.keys.certificate.find_among(current.whitelist.fingerprints) is None:
            raise PublishError(
                f"the certificate in {self.place.keys_directory} is not on the whitelist: clients would refuse what is "
                "signed with it; put it there with `cvmfs-py repo resign DIR`"
            )

    def _clean_up(self) -> None:
        """Removes what dead publishers left, and makes a directory for working copies."""
        transactions = self.place.storage_directory / DATA / TRANSACTIONS
        try:
            transactions.mkdir(exist_ok=True)
            for left in transactions.glob(f"{_WORKDIR_PREFIX}*"):
                shutil.rmtree(left, ignore_errors=True)
            self.storage.remove_leftovers()
            damaged = begin_writing(self.storage, self.place.mark_file)
            # On the same disk as the storage, which has room for catalogs; its mode keeps web servers out.
            self._workdir = tempfile.mkdtemp(prefix=_WORKDIR_PREFIX, dir=transactions)
        except OSError as error:
            raise self.storage.failed("written to", error) from error
        if damaged:
            self.warnings.append(
                f"removed what a power failure left of an earlier publication: {counted(damaged, 'damaged object')}"
            )

    def _next_revision(self) -> int:
        return max(self.manifest.revision, self._record.revision if self._record else 0) + 1

    def _next_timestamp(self) -> int:
        """Now; but clients refuse what is older than what they have, also when our clock was set back."""
        return max(int(time.time()), self.manifest.timestamp_s, self._record.timestamp_s if self._record else 0)

    def _publish(
        self,
        committed: CommittedTree,
        revision: int,
        timestamp_s: int,
        tag: str | None,
        description: str,
        automatic_tag: bool,
        dropped: Collection[str] = (),
    ) -> PublishedRevision:
        following = dataclasses.replace(
            self.manifest,
            root_hash=committed.root_hash,
            root_size_bytes=committed.root_size_bytes,
            revision=revision,
            timestamp_s=timestamp_s,
            ttl_s=self.settings.ttl_s,
            is_garbage_collectable=self.settings.is_garbage_collectable,
            has_alternative_paths=self.settings.has_alternative_paths,
        )
        tags = {name: one for name, one in self.tags().items() if name not in dropped or name in tagging.MOVING}
        put = tagging.plan_publication(
            tags, self.manifest, following, name=tag, description=description, automatic=automatic_tag
        )
        history = change_history(self.storage, self.manifest, self.settings, self._workdir, put=put, remove=dropped)
        self._seal(dataclasses.replace(following, history_hash=history))
        return _published(self.manifest, tuple(one.name for one in put if one.name not in tagging.MOVING))

    def _seal(self, following: Manifest, forget: Collection[ContentHash] = ()) -> None:
        certificate = own_certificate(self.storage, self.keys, self.settings, following.certificate_hash)
        following = dataclasses.replace(following, certificate_hash=certificate)
        self.manifest = seal(
            self.place,
            self.storage,
            self.keys,
            self._workdir,
            self.manifest,
            following,
            warn=self.warnings.append,
            forget=forget,
        )
        self._record = now_published.read_record(self.place)


def _published(manifest: Manifest, tags: tuple[str, ...], *, is_new: bool = True) -> PublishedRevision:
    return PublishedRevision(
        manifest.fqrn,
        manifest.revision,
        manifest.root_hash,
        manifest.root_size_bytes or 0,
        manifest.timestamp_s,
        tags,
        is_new,
    )
