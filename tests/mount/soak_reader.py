"""One reader of the soak: random operations on a mount for ever, each checked against what was published.

    python -I -S soak_reader.py SEED TOP FACTS

Prints a line of JSON for every error (`error`), for every wrong answer (`wrong`), and once a second for what was done.
SIGUSR2 interrupts whatever it waits for; SIGTERM ends it. Knows nothing of the project: it is a program like any other.
"""

import contextlib
import errno
import hashlib
import json
import mmap
import os
import random
import signal
import stat
import subprocess
import sys
import time

HELD_FILES = 6
PIECE_BYTES = 300_000


class Interrupted(Exception):
    """Somebody sent a signal."""


class Wrong(Exception):
    """An answer that is not what was published."""


def content(name, size):
    """What a file of this name and size contains."""
    block = hashlib.sha256(name.encode()).digest() * 128
    return (block * (size // len(block) + 1))[:size]


def live_content(name, revision):
    """What a file that changes contains in a revision; its first eight bytes tell which one."""
    size = 1000 + int.from_bytes(hashlib.sha256(f"{name} {revision}".encode()).digest()[:4], "little") % 400_000
    return b"%08d" % revision + content(f"{name} {revision}", size)


def require(condition, *what):
    if not condition:
        raise Wrong(" ".join(map(str, what)))


class Reader:
    def __init__(self, seed, top, facts):
        self.chance = random.Random(seed)
        self.top = top
        # By path: ["file", size, links, name of its content], ["link", target], ["directory", names], [something else].
        self.entries = facts["entries"]
        self.live = facts["live"]
        self.program = facts["program"]
        self.fqrn = facts["fqrn"].encode()
        self.paths = {}
        for path, fact in self.entries.items():
            self.paths.setdefault(fact[0], []).append(path)
        self.held = []
        self.operations = (
            *[self.whole] * 6,
            *[self.pieces] * 6,
            *[self.mapped] * 2,
            *[self.look] * 8,
            *[self.absent] * 4,
            *[self.listing] * 3,
            *[self.half_a_listing],
            *[self.walk],
            *[self.link] * 2,
            *[self.attributes] * 2,
            *[self.holes],
            *[self.changing] * 5,
            *[self.hold] * 2,
            *[self.held_before] * 4,
            self.run_program,
        )

    def pick(self, kind):
        path = self.chance.choice(self.paths[kind])
        return path, os.path.join(self.top, path), self.entries[path]

    def whole(self):
        path, place, (_, size, _, name) = self.pick("file")
        with open(place, "rb", buffering=0) as file:
            data = file.read()
        require(data == content(name, size), "content of", path, len(data), "of", size)

    def pieces(self):
        path, place, (_, size, _, name) = self.pick("file")
        expected = content(name, size)
        fd = os.open(place, os.O_RDONLY)
        try:
            for _ in range(self.chance.randrange(1, 6)):
                offset = self.chance.randrange(size + 5000)
                length = self.chance.choice((1, 100, 4096, 70_000, PIECE_BYTES))
                data = os.pread(fd, length, offset)
                require(data == expected[offset : offset + length], "bytes of", path, "at", offset, len(data))
        finally:
            os.close(fd)

    def mapped(self):
        path, place, (_, size, _, name) = self.pick("file")
        if not size:
            return
        with open(place, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as data:
            offset = self.chance.randrange(size)
            # Pages that cannot be read end a process with SIGBUS: only what was read before is looked at here.
            length = len(os.pread(file.fileno(), 50_000, offset))
            require(data[offset : offset + length] == content(name, size)[offset : offset + length], "mapped", path)

    def look(self):
        path, place, fact = self.pick(self.chance.choice(("file", "file", "link", "directory")))
        status = os.lstat(place)
        kind = {"file": stat.S_ISREG, "link": stat.S_ISLNK, "directory": stat.S_ISDIR}[fact[0]]
        require(kind(status.st_mode), "kind of", path)
        if fact[0] == "file":
            require((status.st_size, status.st_nlink) == (fact[1], fact[2]), "status of", path, status)

    def absent(self):
        _, place, _ = self.pick("directory")
        name = os.path.join(place, f"absent-{self.chance.randrange(50)}")
        require(not os.path.lexists(name), name, "exists")
        try:
            os.stat(name)
        except FileNotFoundError:
            return
        raise Wrong(name + " was found")

    def listing(self):
        path, place, (_, names) = self.pick("directory")
        with os.scandir(place) as scan:
            found = {each.name: (each.is_dir(follow_symlinks=False), each.is_symlink()) for each in scan}
        require(sorted(found) == names, "listing of", path)
        for name, kinds in found.items():
            fact = self.entries[os.path.join(path, name)]
            require(kinds == (fact[0] == "directory", fact[0] == "link"), "kind of", path, name)

    def half_a_listing(self):
        _, place, (_, names) = self.pick("directory")
        with os.scandir(place) as scan:
            for _, each in zip(range(len(names) // 2), scan, strict=False):
                require(each.name in names, each.name, "is not in", place)

    def walk(self):
        path, place, _ = self.pick("directory")
        count = sum(len(directories) + len(files) for _, directories, files in os.walk(place, onerror=self.fail))
        inside = path + "/" if path else ""
        require(count == sum(each.startswith(inside) for each in self.entries if each != path), "walk of", path)

    @staticmethod
    def fail(error):
        raise error

    def link(self):
        path, place, (_, target) = self.pick("link")
        require(os.readlink(place) == target, "target of", path)

    def attributes(self):
        path, place, _ = self.pick(self.chance.choice(("file", "directory")))
        require(os.getxattr(place, "user.fqrn") == self.fqrn, "user.fqrn of", path)
        os.listxattr(place)

    def holes(self):
        path, place, (_, size, _, _) = self.pick("file")
        fd = os.open(place, os.O_RDONLY)
        try:
            if size:
                require(os.lseek(fd, 0, os.SEEK_HOLE) == size, "hole in", path)
        finally:
            os.close(fd)

    def changing(self):
        name = self.chance.choice(self.live)
        with open(os.path.join(self.top, name), "rb", buffering=0) as file:
            data = file.read(8)
            while part := file.read(self.chance.choice((5000, 70_000, PIECE_BYTES))):
                data += part
                if self.chance.random() < 0.05:
                    time.sleep(self.chance.random() * 0.3)
        require(data == live_content(name, int(data[:8])), name, "is a mixture:", data[:8], len(data))

    def hold(self):
        name = self.chance.choice(self.live)
        fd = os.open(os.path.join(self.top, name), os.O_RDONLY)
        self.held.append((name, fd, None))
        if len(self.held) > HELD_FILES:
            os.close(self.held.pop(self.chance.randrange(HELD_FILES))[1])

    def held_before(self):
        """A file stays what it was when it was opened, also the parts that nobody has read until now."""
        if not self.held:
            return
        index = self.chance.randrange(len(self.held))
        name, fd, revision = self.held[index]
        begin = os.pread(fd, 8, 0)
        require(revision is None or int(begin) == revision, name, "became another:", revision, begin)
        self.held[index] = name, fd, int(begin)
        expected = live_content(name, int(begin))
        require(os.fstat(fd).st_size == len(expected), "size of", name)
        offset = self.chance.randrange(len(expected))
        require(os.pread(fd, PIECE_BYTES, offset) == expected[offset : offset + PIECE_BYTES], name, "at", offset)

    def run_program(self):
        done = subprocess.run([os.path.join(self.top, self.program)], check=False, stderr=subprocess.DEVNULL)
        if done.returncode:
            raise OSError(errno.EIO, "the program ended badly")


def say(**facts):
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def interrupt(*_):
    raise Interrupted


def work(reader):
    done = interrupted = 0
    longest_s = 0.0
    told_at_s = time.monotonic()
    while True:
        operation = reader.chance.choice(reader.operations)
        began_s = time.monotonic()
        try:
            operation()
            done += 1
        except Interrupted:
            interrupted += 1
        except Wrong as wrong:
            say(wrong=f"{operation.__name__}: {wrong}")
        except OSError as error:
            what = f"{operation.__name__} of {error.filename}"
            say(error=error.errno, began=began_s, ended=time.monotonic(), what=what)
        now_s = time.monotonic()
        longest_s = max(longest_s, now_s - began_s)
        if now_s - told_at_s > 1:
            say(done=done, interrupted=interrupted, longest=round(longest_s, 3))
            done = interrupted = 0
            told_at_s = now_s


def main():
    with open(sys.argv[3], encoding="utf-8") as file:
        reader = Reader(int(sys.argv[1]), sys.argv[2], json.load(file))
    signal.signal(signal.SIGUSR2, interrupt)
    say(done=0)  # now signals may come
    while True:
        with contextlib.suppress(Interrupted):  # between two operations
            work(reader)


if __name__ == "__main__":
    main()
