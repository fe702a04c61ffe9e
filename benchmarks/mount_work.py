"""What programs do with files, timed: a program of its own, started by its path, so that it measures nothing else.

    python -I -S mount_work.py WORK TOP [ARGUMENTS]

Prints one line of JSON: the seconds it took, and what it counted.

    walk            every directory is listed                             (the same as find)
    lstat LIST      lstat(2) of every path that the file LIST names
    read LIST       open, read and close every file that the file LIST names
    stream FILE     read one file in pieces of 1 MiB
    trees DIR...    walk each directory and read every 8th file in it, one directory after the other
    trees-at-once   the same, in one process a directory
    readers LIST    as read, by four processes that share the list
"""

import json
import os
import sys
import time

PIECE_BYTES = 1 << 20
READERS = 4
EVERY = 8


def walk(top):
    count = 0
    pending = [top]
    while pending:
        with os.scandir(pending.pop()) as listing:
            for item in listing:
                count += 1
                if item.is_dir(follow_symlinks=False):
                    pending.append(item.path)
    return count


def lstat_all(names):
    lstat = os.lstat
    for name in names:
        lstat(name)
    return len(names)


def read_all(names):
    """Files are read whole; what is larger than a piece in pieces."""
    buffer = bytearray(PIECE_BYTES)
    view = [buffer]
    total = 0
    for name in names:
        fd = os.open(name, os.O_RDONLY)
        while True:
            count = os.readv(fd, view)
            total += count
            if count < PIECE_BYTES:
                break
        os.close(fd)
    return total


def stream(name):
    return read_all([name])


def work_on_tree(top):
    names = []
    pending = [top]
    while pending:
        with os.scandir(pending.pop()) as listing:
            for item in listing:
                if item.is_dir(follow_symlinks=False):
                    pending.append(item.path)
                elif item.is_file(follow_symlinks=False):
                    names.append(item.path)
    return read_all(names[::EVERY])


def at_once(work, shares):
    """Each share in a process of its own; returns when all have ended."""
    children = []
    for share in shares:
        child = os.fork()
        if not child:
            work(share)
            os._exit(0)
        children.append(child)
    for child in children:
        _, status = os.waitpid(child, 0)
        if status:
            raise SystemExit(f"a process has failed: {status}")
    return len(children)


def lines_of(path):
    with open(path, "rb") as stream:
        return stream.read().splitlines()


def main(work, top, *arguments):
    names = lines_of(arguments[0]) if work in ("lstat", "read", "readers") else []
    os.chdir(top)
    start = time.perf_counter()
    if work == "walk":
        count = walk(b".")
    elif work == "lstat":
        count = lstat_all(names)
    elif work == "read":
        count = read_all(names)
    elif work == "stream":
        count = stream(arguments[0])
    elif work == "trees":
        count = sum(work_on_tree(each) for each in arguments)
    elif work == "trees-at-once":
        count = at_once(work_on_tree, arguments)
    elif work == "readers":
        count = at_once(read_all, [names[number::READERS] for number in range(READERS)])
    else:
        raise SystemExit(f"there is no work {work!r}")
    print(json.dumps({"wall_s": time.perf_counter() - start, "count": count}))


if __name__ == "__main__":
    main(*sys.argv[1:])
