"""Which tags a repository has after a change: the moving ones, automatic and named ones. Pure; stores nothing."""

from __future__ import annotations

import dataclasses
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from catalog.history import Tag
from cvmfs_py.errors import PublishError, UsageError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from cvmfs_py.trust.manifest import Manifest

TRUNK = "trunk"  # the current revision
TRUNK_PREVIOUS = "trunk-previous"  # what a rollback goes back to
MOVING = (TRUNK, TRUNK_PREVIOUS)
_TRUNK_DESCRIPTION = "current HEAD"
_PREVIOUS_DESCRIPTION = "default undo target"
_NAME = re.compile(r"[A-Za-z0-9._/:-]{1,255}\Z")


def check_tag_name(name: str) -> None:
    """Refuses a name that a person may not give."""
    if name in MOVING:
        raise UsageError(f"the tag {name} is moved by every publication: choose another name")
    if not _NAME.match(name):
        raise UsageError(
            f"{name!r} cannot name a tag: 1 to 255 letters, digits, dots, dashes, underscores, slashes and colons can"
        )


def generic_tag_name(timestamp_s: int, taken: Collection[str]) -> str:
    """The name of an automatic tag. A second one within the same second gets milliseconds."""
    moment = datetime.fromtimestamp(timestamp_s, UTC)
    name = f"generic-{moment:%Y-%m-%dT%H:%M:%S}Z"
    while name in taken:
        moment += timedelta(milliseconds=1)
        name = f"generic-{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03}Z"
    return name


def head_tag(manifest: Manifest, name: str, description: str = "") -> Tag:
    """A tag of what a manifest publishes."""
    return Tag(
        name,
        manifest.root_hash,
        manifest.revision,
        manifest.timestamp_s,
        description,
        "",
        manifest.root_size_bytes or 0,
    )


def plan_publication(
    tags: Mapping[str, Tag],
    current: Manifest | None,
    following: Manifest,
    *,
    name: str | None,
    description: str,
    automatic: bool,
) -> tuple[Tag, ...]:
    """The tags to be put when the manifest `following` replaces `current` (None: there was nothing before)."""
    put = []
    if name is not None:
        refuse_existing(tags, name)
        put.append(head_tag(following, name, description))
    elif automatic:
        put.append(head_tag(following, generic_tag_name(following.timestamp_s, tags), description))
    if current is not None:
        trunk = tags.get(TRUNK)
        # The time of a manifest is that of the last change of its tags; the tag knows that of the publication.
        if trunk is None or trunk.root_hash != current.root_hash:
            trunk = head_tag(current, TRUNK)
        put.append(dataclasses.replace(trunk, name=TRUNK_PREVIOUS, description=_PREVIOUS_DESCRIPTION))
    put.append(head_tag(following, TRUNK, _TRUNK_DESCRIPTION))
    return tuple(put)


def refuse_existing(tags: Collection[str], name: str) -> None:
    check_tag_name(name)
    if name in tags:
        raise PublishError(
            f"there is a tag {name} already, and it stays: choose another name, or remove it with `repo tag remove`"
        )


def find_tag(tags: Mapping[str, Tag], name: str) -> Tag:
    found = tags.get(name)
    if found is None:
        raise PublishError(f"there is no tag {name}; `repo tag list` shows all tags")
    return found
