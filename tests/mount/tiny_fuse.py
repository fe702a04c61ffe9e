"""The smallest useful file system: answers on a FUSE descriptor, with two files in one directory.

Run as a program it serves the descriptors that it is given by number, until their mounts are gone.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
import sys
import threading

ROOT = 1
FILES = {b"hello": (2, 0o444, b"hello, world\n"), b"tool": (3, 0o555, b'#!/bin/sh\necho "tool of $(id -u)" "$@"\n')}
CONTENT = {number: content for number, _, content in FILES.values()}

_HEADER = struct.Struct("<IIQQIIIHH")
_ANSWER = struct.Struct("<IiQ")
_LOOKUP, _FORGET, _GETATTR, _OPEN, _READ, _RELEASE, _FLUSH, _INIT = 1, 2, 3, 14, 15, 18, 25, 26
_INTERRUPT, _DESTROY, _BATCH_FORGET = 36, 38, 42
_VALID_S = 3600


def serve(fd: int) -> None:
    """Answers until the mount is gone."""
    while True:
        try:
            request = os.read(fd, 1 << 18)
        except OSError as error:
            if error.errno in (errno.EINTR, errno.ENOENT):  # a request was taken back
                continue
            if error.errno == errno.ENODEV:
                return
            raise
        _, opcode, unique, node, _, _, _, _, _ = _HEADER.unpack_from(request)
        if opcode in (_FORGET, _BATCH_FORGET, _INTERRUPT):
            continue
        number, body = _answer(opcode, node, request[_HEADER.size :])
        try:
            os.write(fd, _ANSWER.pack(_ANSWER.size + len(body), -number, unique) + body)
        except FileNotFoundError:
            continue  # the asking process was killed
        if opcode == _DESTROY:
            return


def _answer(opcode: int, node: int, body: bytes) -> tuple[int, bytes]:
    """(errno, payload)"""
    if opcode == _INIT:
        major, minor, readahead, _ = struct.unpack_from("<IIII", body)
        return 0, struct.pack(
            "<IIIIHHIIHHII6I", major, min(minor, 31), readahead, 0, 12, 9, 4096, 1, 1, 0, 0, 0, *[0] * 6
        )
    if opcode == _GETATTR:
        return 0, struct.pack("<QII", _VALID_S, 0, 0) + _attributes(node)
    if opcode == _LOOKUP:
        found = FILES.get(body.rstrip(b"\0"))
        if found is None or node != ROOT:
            return errno.ENOENT, b""
        return 0, struct.pack("<QQQQII", found[0], 1, _VALID_S, _VALID_S, 0, 0) + _attributes(found[0])
    if opcode == _OPEN:
        return 0, struct.pack("<QII", 0, 0, 0)
    if opcode == _READ:
        _, offset, size = struct.unpack_from("<QQI", body)
        return 0, CONTENT[node][offset : offset + size]
    if opcode in (_RELEASE, _FLUSH):
        return 0, b""
    return errno.ENOSYS, b""


def _attributes(node: int) -> bytes:
    mode, size = stat.S_IFDIR | 0o755, 0
    for number, permissions, content in FILES.values():
        if number == node:
            mode, size = stat.S_IFREG | permissions, len(content)
    return struct.pack("<6Q10I", node, size, 1, 0, 0, 0, 0, 0, 0, mode, 1, os.getuid(), os.getgid(), 0, 4096, 0)


def main() -> None:
    threads = [threading.Thread(target=serve, args=[int(word)]) for word in sys.argv[1:]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
