"""One reader of the soak: random operations on a mount for ever, each checked against what was published.

    python -I -S soak_reader.py SEED TOP FACTS REVISION

REVISION is the one to which the mount is pinned, 0 for a live one. Prints a line of JSON for every error (`error`), for
every wrong answer (`wrong`), and once a second for what was done. SIGUSR2 interrupts whatever it waits for, SIGUSR1 as
well, but then it tries again as Python does; SIGTERM ends it. Knows nothing of the project: a program like any other.
"""

import contextlib
import ctypes
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
import zlib

HELD_FILES = 6
PIECE_BYTES = 300_000
NEWS_S = 2.0  # in which a mount that says it shows a revision has stopped to show earlier ones: the kernel believes 1 s
XATTR = "user.soak"


class Interrupted(Exception):
    """Somebody sent a signal."""


class Wrong(Exception):
    """An answer that is not what was published."""


class DirectoryRecord(ctypes.Structure):
    """What readdir gives, on 64-bit Linux."""

    _fields_ = [
        ("ino", ctypes.c_uint64),
        ("position", ctypes.c_int64),
        ("length", ctypes.c_ushort),
        ("kind", ctypes.c_ubyte),
        ("name", ctypes.c_char * 256),
    ]


C = ctypes.CDLL(None, use_errno=True)
C.opendir.restype = ctypes.c_void_p
C.readdir.argtypes, C.readdir.restype = [ctypes.c_void_p], ctypes.POINTER(DirectoryRecord)
C.telldir.argtypes, C.telldir.restype = [ctypes.c_void_p], ctypes.c_long
C.seekdir.argtypes, C.seekdir.restype = [ctypes.c_void_p, ctypes.c_long], None
C.closedir.argtypes = [ctypes.c_void_p]


def content(name, size):
    """What a file of this name and size contains."""
    block = hashlib.sha256(name.encode()).digest() * 128
    return (block * (size // len(block) + 1))[:size]


def live_content(name, revision):
    """What a file that changes contains in a revision; its first eight bytes tell which one."""
    size = 1000 + int.from_bytes(hashlib.sha256(f"{name} {revision}".encode()).digest()[:4], "little") % 400_000
    return b"%08d" % revision + content(f"{name} {revision}", size)


def turning_names(revision):
    """What a directory lists that has other names in every revision."""
    return [f"r{revision:08}-{number:03}" for number in range(30 + revision % 50)]


def mode_of(name):
    return (0o644, 0o755, 0o444, 0o600)[zlib.crc32(name.encode()) % 4]


def mtime_of(name):
    return 1_500_000_000 + zlib.crc32(name.encode()) % 100_000_000


def require(condition, *what):
    if not condition:
        raise Wrong(" ".join(map(str, what)))


def require_same(found, expected, *what):
    if found != expected:
        pairs = enumerate(zip(found, expected, strict=False))
        first = next((number for number, (ours, theirs) in pairs if ours != theirs), min(len(found), len(expected)))
        require(False, *what, f"- {len(found)} bytes, not {len(expected)}; the first difference at {first}")


def read_at(fd, length, offset):
    """All of it. One call may give less where an error follows, or a signal came; only nothing is the end."""
    parts = []
    while length > 0:
        part = os.pread(fd, length, offset)
        if not part:
            break
        parts.append(part)
        offset += len(part)
        length -= len(part)
    return b"".join(parts)


@contextlib.contextmanager
def opened(place, directory_fd=None):
    fd = os.open(place, os.O_RDONLY, dir_fd=directory_fd)
    try:
        yield fd
    finally:
        os.close(fd)


class Reader:
    def __init__(self, seed, top, facts, revision):
        self.chance = random.Random(seed)
        self.top = top
        # By path: ["file", size, links, name, attribute], ["link", target], ["directory", names], [something else].
        # The name is that of a hard link's first name: it decides content, mode and time.
        self.entries = facts["entries"]
        self.live = facts["live"]
        self.turning = facts["turning"]
        self.shifts = facts["shifts"]
        self.program = facts["program"]
        self.fqrn = facts["fqrn"].encode()
        self.published = facts["published"]
        self.pinned = revision
        self.shown = []  # when the mount said which revision it shows
        self.newest = {}  # revision of each name that changes, as it was seen last
        self.paths = {}
        for path, fact in self.entries.items():
            self.paths.setdefault(fact[0], []).append(path)
        self.long_listings = [path for path in self.paths["directory"] if len(self.entries[path][1]) > 100]
        self.held = []
        self.held_directories = []
        self.operations = (
            *[self.whole] * 6,
            *[self.pieces] * 6,
            *[self.mapped] * 2,
            self.mapped_unread,
            *[self.direct] * 3,
            *[self.look] * 8,
            *[self.absent] * 4,
            *[self.listing] * 3,
            self.half_a_listing,
            *[self.listing_in_pieces] * 2,
            self.walk,
            *[self.link] * 2,
            *[self.attributes] * 2,
            self.holes,
            *[self.revision] * 2,
            *[self.changing] * 5,
            *[self.shifting] * 4,
            *[self.turned] * 2,
            *[self.hold] * 2,
            *[self.held_before] * 4,
            *[self.hold_directory] * 1,
            *[self.directory_held_before] * 2,
            self.run_program,
        )

    def maybe_cool(self, fd):
        """The kernel has to ask for the pages again, unless somebody else uses them."""
        if self.chance.random() < 0.4:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def pick(self, kind):
        path = self.chance.choice(self.paths[kind])
        return path, os.path.join(self.top, path), self.entries[path]

    # --- what stays

    def whole(self):
        path, place, (_, size, _, name, _) = self.pick("file")
        with open(place, "rb", buffering=0) as file:
            self.maybe_cool(file.fileno())
            require_same(file.read(), content(name, size), "content of", path)

    def pieces(self):
        path, place, (_, size, _, name, _) = self.pick("file")
        expected = content(name, size)
        with opened(place) as fd:
            self.maybe_cool(fd)
            for _ in range(self.chance.randrange(1, 6)):
                offset = self.chance.randrange(size + 5000)
                length = self.chance.choice((1, 100, 4096, 70_000, PIECE_BYTES))
                require_same(read_at(fd, length, offset), expected[offset : offset + length], path, "at", offset)

    def mapped(self):
        self.map(is_read_before=True)

    def mapped_unread(self):
        """Pages that cannot be read end a process with SIGBUS, which whoever started it has to understand."""
        self.map(is_read_before=False)

    def map(self, *, is_read_before):
        path, place, (_, size, _, name, _) = self.pick("file")
        if not size:
            return
        with opened(place) as fd, mmap.mmap(fd, 0, prot=mmap.PROT_READ) as data:
            offset = self.chance.randrange(size)
            self.maybe_cool(fd)
            length = len(os.pread(fd, 50_000, offset)) if is_read_before else 50_000
            require_same(data[offset : offset + length], content(name, size)[offset : offset + length], "mapped", path)

    def direct(self):
        """Past the page cache: whoever waits for such a read can be interrupted."""
        path, place, (_, size, _, name, _) = self.pick("file")
        fd = os.open(place, os.O_RDONLY | os.O_DIRECT)
        try:
            with mmap.mmap(-1, 1 << 17) as buffer:
                offset = self.chance.randrange(size // 4096 + 2) * 4096
                count = os.preadv(fd, [buffer], offset)
                require(count or offset >= size, path, "ends at", offset)
                require_same(buffer[:count], content(name, size)[offset : offset + count], path, "directly at", offset)
        finally:
            os.close(fd)

    def look(self):
        path, place, fact = self.pick(self.chance.choice(("file", "file", "link", "directory")))
        status = os.lstat(place)
        kind = {"file": stat.S_ISREG, "link": stat.S_ISLNK, "directory": stat.S_ISDIR}[fact[0]]
        require(kind(status.st_mode), "kind of", path)
        if fact[0] == "file":
            _, size, links, name, _ = fact
            seen = status.st_size, status.st_nlink, stat.S_IMODE(status.st_mode), status.st_mtime
            require(seen == (size, links, mode_of(name), mtime_of(name)), "status of", path, status)
            if links > 1:
                require(os.lstat(os.path.join(self.top, name)).st_ino == status.st_ino, "inode of", path, status)

    def absent(self):
        _, place, _ = self.pick("directory")
        name = os.path.join(place, f"absent-{self.chance.randrange(50)}")
        try:
            os.lstat(name)
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
            require(kinds == (fact[0] in ("directory", "turning"), fact[0] == "link"), "kind of", path, name)

    def half_a_listing(self):
        _, place, (_, names) = self.pick("directory")
        with os.scandir(place) as scan:
            for _, each in zip(range(len(names) // 2), scan, strict=False):
                require(each.name in names, each.name, "is not in", place)

    def listing_in_pieces(self):
        """From every place that a listing was told of, it goes on as it did the first time."""
        path = self.chance.choice(self.long_listings) if self.chance.random() < 0.7 else self.pick("directory")[0]
        stream = C.opendir(os.fsencode(os.path.join(self.top, path)))
        if not stream:
            raise OSError(ctypes.get_errno(), "opendir", path)
        try:
            found = self.rest_of(stream, path)
            names = sorted(os.fsdecode(name) for _, name in found if name not in (b".", b".."))
            require(names == self.entries[path][1], "listing of", path)
            for _ in range(4):
                index = self.chance.randrange(len(found))
                C.seekdir(stream, found[index][0])
                rest = self.rest_of(stream, path)
                require([name for _, name in rest] == [name for _, name in found[index:]], path, "from", index)
        finally:
            C.closedir(stream)

    @staticmethod
    def rest_of(stream, path):
        found = []
        while True:
            position = C.telldir(stream)
            ctypes.set_errno(0)
            record = C.readdir(stream)
            if not record:
                if ctypes.get_errno():
                    raise OSError(ctypes.get_errno(), "readdir", path)
                return found
            found.append((position, record.contents.name))

    def walk(self):
        """All but what is in directories that change: a walk may take longer than a revision."""
        path, place, _ = self.pick("directory")
        count = 0
        for above, directories, files in os.walk(place, onerror=self.fail):
            count += len(directories) + len(files)
            relative = os.path.relpath(above, self.top)
            directories[:] = [
                each for each in directories if os.path.normpath(f"{relative}/{each}") not in self.turning
            ]
        inside = path + "/" if path else ""
        require(count == sum(each.startswith(inside) for each in self.entries if each != path), "walk of", path)

    @staticmethod
    def fail(error):
        raise error

    def link(self):
        path, place, (_, target) = self.pick("link")
        require(os.readlink(place) == target, "target of", path)

    def attributes(self):
        path, place, fact = self.pick(self.chance.choice(("file", "file", "directory")))
        require(os.getxattr(place, "user.fqrn") == self.fqrn, "user.fqrn of", path)
        names = os.listxattr(place)
        if fact[0] == "file":
            require((XATTR in names) == bool(fact[4]), "attributes of", path, names)
            if fact[4]:
                require(os.getxattr(place, XATTR) == fact[4].encode(), XATTR, "of", path)

    def holes(self):
        """There is none but the one behind the end."""
        path, place, (_, size, _, _, _) = self.pick("file")
        with opened(place) as fd:
            if size:
                offset = self.chance.randrange(size)
                require(os.lseek(fd, offset, os.SEEK_DATA) == offset, "data in", path)
                require(os.lseek(fd, offset, os.SEEK_HOLE) == size, "hole in", path)
            try:
                os.lseek(fd, size, os.SEEK_DATA)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
            else:
                raise Wrong(f"data behind the end of {path}")

    def run_program(self):
        done = subprocess.run([os.path.join(self.top, self.program)], check=False, stderr=subprocess.DEVNULL)
        if done.returncode:
            raise OSError(errno.EIO, "the program ended badly")

    # --- what changes

    def revision(self):
        shown = int(os.getxattr(self.top, "user.revision"))
        require(not self.pinned or shown == self.pinned, "the pinned mount shows", shown)
        require(not self.shown or shown >= self.shown[-1][1], "revision", shown, "after", self.shown[-1:])
        self.shown.append((time.monotonic(), shown))
        self.check_published(shown)

    def check_published(self, revision):
        with open(self.published, encoding="ascii") as file:
            require(revision <= int(file.read()), "revision", revision, "is not published yet")

    def earliest(self):
        """The revision that has to be shown by now; asked before the name is."""
        limit_s = time.monotonic() - NEWS_S
        while len(self.shown) > 1 and self.shown[1][0] < limit_s:
            del self.shown[0]
        return self.shown[0][1] if self.shown and self.shown[0][0] < limit_s else 0

    def check_revision(self, name, revision, earliest):
        """Of what was opened just now."""
        require(not self.pinned or revision == self.pinned, name, "is of", revision, "in a pinned mount")
        require(revision >= self.newest.get(name, 0), name, "is of", revision, "after", self.newest.get(name))
        require(revision >= earliest, name, "is of", revision, "although", earliest, "was shown long ago")
        self.newest[name] = revision
        self.check_published(revision)

    def changing(self):
        name, earliest = self.chance.choice(self.live), self.earliest()
        with open(os.path.join(self.top, name), "rb", buffering=0) as file:
            data = file.read(8)
            self.check_revision(name, int(data), earliest)
            while part := file.read(self.chance.choice((5000, 70_000, PIECE_BYTES))):
                data += part
                if self.chance.random() < 0.05:
                    time.sleep(self.chance.random() * 0.3)
        require_same(data, live_content(name, int(data[:8])), name, data[:8])

    def shifting(self):
        """In a catalog of its own, which is another one in every revision, and so has to be fetched first."""
        name, earliest = f"{self.chance.choice(self.shifts)}/revision", self.earliest()
        with opened(os.path.join(self.top, name)) as fd:
            data = read_at(fd, 1000, 0)
        require(len(data) == 8, name, "has", data)
        self.check_revision(name, int(data), earliest)

    def hold(self):
        name, earliest = self.chance.choice(self.live), self.earliest()
        fd = os.open(os.path.join(self.top, name), os.O_RDONLY)
        self.held.append((name, fd, None, earliest))
        if len(self.held) > HELD_FILES:
            os.close(self.held.pop(self.chance.randrange(HELD_FILES))[1])

    def held_before(self):
        """A file stays what it was when it was opened, also the parts that nobody has read until now."""
        if not self.held:
            return
        index = self.chance.randrange(len(self.held))
        name, fd, revision, earliest = self.held[index]
        self.maybe_cool(fd)
        begin = int(read_at(fd, 8, 0))
        require(revision is None or begin == revision, name, "became another:", revision, begin)
        require(begin >= earliest, name, "is of", begin, "although", earliest, "was shown long before")
        self.held[index] = name, fd, begin, earliest
        expected = live_content(name, begin)
        require(os.fstat(fd).st_size == len(expected), "size of", name)
        offset = self.chance.randrange(len(expected))
        require_same(read_at(fd, PIECE_BYTES, offset), expected[offset : offset + PIECE_BYTES], name, "at", offset)

    def turned(self):
        """A listing is wholly of one revision, and so is what its names lead to."""
        name, earliest = self.chance.choice(self.turning), self.earliest()
        with opened(os.path.join(self.top, name)) as fd:
            self.check_revision(name, self.revision_listed(fd, name), earliest)

    def hold_directory(self):
        name = self.chance.choice(self.turning)
        fd = os.open(os.path.join(self.top, name), os.O_RDONLY)
        self.held_directories.append((name, fd, None))
        if len(self.held_directories) > HELD_FILES:
            os.close(self.held_directories.pop(self.chance.randrange(HELD_FILES))[1])

    def directory_held_before(self):
        if not self.held_directories:
            return
        index = self.chance.randrange(len(self.held_directories))
        name, fd, revision = self.held_directories[index]
        listed = self.revision_listed(fd, name)
        require(revision is None or listed == revision, name, "became another:", revision, listed)
        self.held_directories[index] = name, fd, listed

    def revision_listed(self, fd, name):
        names = sorted(os.listdir(fd))
        require(names, name, "is empty")
        revision = int(names[0][1:9])
        require(names == turning_names(revision), "listing of", name, names[0], names[-1], len(names))
        one = self.chance.choice(names)
        with opened(one, fd) as file_fd:
            require_same(read_at(file_fd, 1000, 0), one.encode(), name, one)
        return revision


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
        except (Interrupted, InterruptedError):
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
        reader = Reader(int(sys.argv[1]), sys.argv[2], json.load(file), int(sys.argv[4]))
    signal.signal(signal.SIGUSR2, interrupt)
    signal.signal(signal.SIGUSR1, lambda *_: None)
    say(done=0)  # now signals may come
    while True:
        with contextlib.suppress(Interrupted):  # between two operations
            work(reader)


if __name__ == "__main__":
    main()
