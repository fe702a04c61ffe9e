"""From a path to a node: direct look-up first, and through symbolic links where the path has some. Pure.

A path is `b""` for the root, else absolute without empty and `.` parts. Links are followed inside the repository only;
one that leaves it by `..` or by its absolute path may come back to where the repository is mounted.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from catalog.errors import show_path
from cvmfs_py.errors import FsError
from cvmfs_py.vfs.attrs import link_target

if TYPE_CHECKING:
    from catalog.opened import OpenObject
    from catalog.tree import CatalogTree, Located
    from cvmfs_py.vfs.attrs import View

LINK_LIMIT = 40  # as the kernel
TARGET_LIMIT_BYTES = 4095


def find(tree: CatalogTree, path: bytes, open_object: OpenObject) -> Located:
    """The entry at exactly this path, which may itself be a link; ENOENT or ENOTDIR where there is none."""
    located = tree.deepest(path, open_object)
    if located.path == path:
        return located
    if not located.entry.is_directory and not located.entry.is_symlink:
        raise FsError(errno.ENOTDIR, f"{show_path(located.path)} is not a directory")
    raise FsError(errno.ENOENT, f"{show_path(path)}: there is no such file or directory in this snapshot")


def resolve(
    tree: CatalogTree,
    path: bytes,
    view: View,
    roots: tuple[bytes, ...],
    open_object: OpenObject,
    *,
    follow_last: bool = True,
) -> Located:
    """The entry that a program would find at this path, links on the way followed, and at its end if `follow_last`.

    `roots` are the absolute paths at which the repository is mounted, the one that the path is seen from first.
    """
    direct = tree.lookup(path, open_object)
    if direct is not None and not (follow_last and direct.entry.is_symlink):
        return direct
    done = b""
    todo = _parts(path)
    links = 0
    while True:
        node = find(tree, done, open_object)
        if node.entry.is_symlink and (todo or follow_last):
            links += 1
            if links > LINK_LIMIT:
                raise FsError(errno.ELOOP, f"{show_path(path)}: too many levels of symbolic links")
            target = _checked_target(node, view)
            todo += _parts(target)
            done = _reenter(b"", todo, roots, done) if target.startswith(b"/") else _parent(done)
        elif not todo:
            return node
        elif not node.entry.is_directory:
            raise FsError(errno.ENOTDIR, f"{show_path(done)} is not a directory")
        else:
            part = todo.pop()
            if part not in (b".", b".."):
                done += b"/" + part
            elif part == b".." and done:
                done = _parent(done)
            elif part == b"..":
                done = _reenter(_parent(roots[0]) if roots else b"", todo, roots, path)


def _parts(path: bytes) -> list[bytes]:
    """The steps of a path, the next one last. A slash at the end is a step, too: only a directory can have one."""
    steps = [part for part in path.split(b"/") if part not in (b"", b".")]
    if path.endswith((b"/", b"/.")) and steps:
        steps.append(b".")
    return steps[::-1]


def _checked_target(link: Located, view: View) -> bytes:
    target = link_target(link.entry, view)
    if not target:  # a variant link for whose variable there is no value
        raise FsError(errno.ENOENT, f"{show_path(link.path)} is a link that leads nowhere")
    if len(target) > TARGET_LIMIT_BYTES:
        raise FsError(errno.ENAMETOOLONG, f"{show_path(link.path)} is a link to a path that is too long")
    return target


def _reenter(outside: bytes, todo: list[bytes], roots: tuple[bytes, ...], link: bytes) -> bytes:
    """Walks on outside of the repository, as far as that is the way to where it is mounted; the path inside is b""."""
    walked = outside
    while todo:
        if walked in roots:
            return b""
        part = todo.pop()
        if part == b"..":
            walked = _parent(walked)
        elif part != b".":
            walked += b"/" + part
        if not any(root == walked or root.startswith(walked + b"/") for root in roots):
            break
    if walked in roots:
        return b""
    there = show_path(b"/".join([walked, *reversed(todo)]))
    raise FsError(errno.EXDEV, f"{show_path(link)} leads to {there}, outside of this repository")


def _parent(path: bytes) -> bytes:
    return path.rpartition(b"/")[0]
