"""`cvmfs-py demo`: makes a small repository, publishes two releases, serves, mounts and uses it. Leaves nothing behind.

Runs the commands that a user would type, as processes of their own, and explains each in one line.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cvmfs_py.cli import options as common
from cvmfs_py.errors import ConfigError, CvmfsError, MountError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

FQRN = "demo.example.org"
# Packages of the standard library that need nothing else to be looked at; the second release has more of them.
FIRST_RELEASE = ("json", "html", "logging", "string.py", "textwrap.py")
SECOND_RELEASE = (*FIRST_RELEASE, "email", "http", "statistics.py")
_GREETING = 'import json\nprint(json.dumps({{"greetings from": "release {release}"}}))\n'


def build_parser(prog: str) -> argparse.ArgumentParser:
    parser = common.new_parser(
        prog,
        "Show the whole way in a few seconds: a repository is made, two releases are published, served on this machine,"
        " mounted and used. Needs no network and no privileges; everything is removed at the end. Where nothing can be"
        " mounted it uses exec; where neither works it shows the rest, says so, and ends with the code 3.",
        "cvmfs-py demo",
    )
    parser.add_argument("--keep", action="store_true", help="keep the files, and tell where they are")
    return parser


def run(options: argparse.Namespace) -> int:
    top = Path(tempfile.mkdtemp(prefix="cvmfs-py-demo-"))
    started = time.monotonic()
    demo = _Demo(top)
    try:
        demo.run()
        elapsed_s = time.monotonic() - started
        if demo.left_out:
            print(f"\nThat was all but {demo.left_out}, in {elapsed_s:.1f} seconds; cvmfs-py doctor tells more.")
        else:
            print(f"\nThat was the whole way, in {elapsed_s:.1f} seconds.")
    finally:
        demo.end()
        if options.keep:
            print(f"Everything is in {top}.")
        else:
            demo.remove_logs()
            shutil.rmtree(top, ignore_errors=True)
    return MountError.exit_code if demo.left_out else 0


class _Demo:
    """The steps."""

    def __init__(self, top: Path) -> None:
        self.left_out = ""
        self._top = top
        self._storage = top / FQRN
        self._tree = top / "tree"
        self._mountpoints: list[Path] = []
        own = {"CVMFS_PY_CACHE_DIR": str(top / "cache"), "XDG_STATE_HOME": str(top / "state"), "COLUMNS": "100"}
        self._environment = {**os.environ, **own}

    def run(self) -> None:
        self._say("Make a repository: a directory to serve, and keys beside it.")
        self._command("repo", "init", FQRN, "--storage", str(self._storage))
        self._write_release("1.0", FIRST_RELEASE)
        self._say("Publish a first release, a part of Python's standard library, and name the snapshot v1.")
        self._command(
            "repo", "publish", str(self._storage), "--from", str(self._tree), "--tag", "v1", "-m", "release 1.0"
        )
        self._write_release("2.0", SECOND_RELEASE)
        self._say("Publish a second release beside it: what is there already is not stored again.")
        self._command(
            "repo", "publish", str(self._storage), "--from", str(self._tree), "--tag", "v2", "-m", "release 2.0"
        )
        with self._served() as url:
            key = ["--key", str(self._storage) + f".keys/{FQRN}.pub"]
            self._say("Ask who vouches for it: every byte is verified, from the master key on.")
            self._command("info", url, *key)
            self._say("List its snapshots; each can be used for as long as the objects exist.")
            self._command("tags", url, *key)
            self._say("List a directory of the newest revision, without mounting anything.")
            self._command("ls", "-l", f"{url}:/releases", *key)
            self._use(url, key)
            self._say("See what changed between the two.")
            self._command("repo", "diff", str(self._storage), "v1", "v2", limit_lines=8)
            self._say("Copy the first release out of the snapshot v1, and run the program that is in it.")
            copy = self._top / "copy"
            self._command("cp", "-r", f"{url}@v1:/releases/1.0", str(copy), *key)
            self._shown([sys.executable, str(copy / "greet.py")], "python3")
            self._say("Check everything that is served.")
            self._command("verify", "--data", url, *key)
        self._say("The server is gone: what is in the cache can still be read.")
        self._command("cat", f"{url}:/releases/latest/greet.py", *key)

    def _use(self, url: str, key: list[str]) -> None:
        """Mounts, or where that is not possible runs in namespaces; where neither is, says why."""
        way = self._find_way(url, key)
        if way == "mount":
            self._use_mounts(url, key)
        elif way == "":
            self.left_out = "mounting it, and running programs from it"
        elif way == "exec":
            self._say("Run a program that sees two snapshots of it side by side below /cvmfs.")
            for release in ("v1", "v2"):
                program = f"/cvmfs/{FQRN}@{release}/releases/latest/greet.py"
                self._command("exec", f"{url}@v1", f"{url}@v2", *key, "--", sys.executable, program)

    def _find_way(self, url: str, key: list[str]) -> str:
        self._say("Mount it: from now on it is a directory like any other.")
        mountpoint = self._mountpoint("now")
        tried = self._run(_own(["mount", url, str(mountpoint), *key]))
        if tried.returncode == 0:
            self._print_command(["cvmfs-py", "mount", url, str(mountpoint), *key])
            self._print_lines(tried.stdout)
            return "mount"
        self._print_lines(tried.stdout)
        tried = self._run(_own(["exec", url, *key, "--", "true"]))
        if tried.returncode == 0:
            return "exec"
        self._print_lines(tried.stdout)
        self._say("Nothing can be mounted on this machine, as said above: this is left out.")
        return ""

    def _use_mounts(self, url: str, key: list[str]) -> None:
        now = self._mountpoint("now")
        self._shown(["ls", "-l", str(now / "releases")])
        self._say("Run a program from it.")
        self._shown([sys.executable, str(now / "releases/latest/greet.py")], "python3")
        self._say("Mount both releases side by side: a snapshot stays what it is.")
        for release in ("v1", "v2"):
            self._command("mount", f"{url}@{release}", str(self._mountpoint(release)), *key)
        for release in ("v1", "v2"):
            self._shown([sys.executable, str(self._mountpoint(release) / "releases/latest/greet.py")], "python3")
        self._say("See what is mounted, and unmount it.")
        self._command("list")
        self._command("umount", *(str(self._mountpoint(name)) for name in ("v1", "v2", "now")))

    def _mountpoint(self, name: str) -> Path:
        place = self._top / "mnt" / name
        if place not in self._mountpoints:
            place.mkdir(parents=True)
            self._mountpoints.append(place)
        return place

    def remove_logs(self) -> None:
        """Those of root's daemons are not among what the demonstration has made for itself."""
        from cvmfs_py.mount.daemon_log import log_directories, log_name

        for directory in log_directories(self._environment, os.geteuid()):
            for place in self._mountpoints:
                (directory / os.fsdecode(log_name(os.fsencode(place)))).unlink(missing_ok=True)

    def end(self) -> None:
        """Unmounts what an interrupted demonstration has left."""
        for place in self._mountpoints:
            if os.path.ismount(place):
                self._run(_own(["umount", str(place)]))

    def _write_release(self, release: str, names: tuple[str, ...]) -> None:
        """A directory with a nested catalog of its own."""
        directory = self._tree / "releases" / release
        directory.mkdir(parents=True)
        library = Path(os.__file__).parent
        for name in names:
            source = library / name
            if source.is_dir():
                shutil.copytree(source, directory / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(source, directory / name)
        (directory / ".cvmfscatalog").touch()
        (directory / "greet.py").write_text(_GREETING.format(release=release))
        latest = self._tree / "releases" / "latest"
        latest.unlink(missing_ok=True)
        latest.symlink_to(release)

    @contextmanager
    def _served(self) -> Iterator[str]:
        self._say("Serve it, as any web server could.")
        arguments = ["serve", str(self._storage), "--port", "0", "--quiet"]
        self._print_command(["cvmfs-py", *arguments, "&"])
        server = subprocess.Popen(_own(arguments), stdout=subprocess.PIPE, text=True, env=self._environment)
        try:
            assert server.stdout is not None
            line = server.stdout.readline().strip()
            if " at " not in line:
                raise CvmfsError("the demonstration's server did not start")
            print(f"  {self._short(line)}")
            yield line.rpartition(" at ")[2]
        finally:
            server.terminate()
            server.wait()
            assert server.stdout is not None
            server.stdout.close()

    def _say(self, text: str) -> None:
        print(f"\n# {text}", flush=True)

    def _command(self, *arguments: str, limit_lines: int | None = None) -> None:
        self._print_command(["cvmfs-py", *arguments])
        self._finish(self._run(_own(list(arguments))), limit_lines)

    def _shown(self, command: list[str], program: str | None = None) -> None:
        """Any program; shown under a shorter name."""
        self._print_command([program or command[0], *command[1:]])
        self._finish(self._run(command))

    def _run(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, env=self._environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )

    def _finish(self, done: subprocess.CompletedProcess[str], limit_lines: int | None = None) -> None:
        self._print_lines(done.stdout, limit_lines)
        if done.returncode:
            # That code says that something about the installation is wrong, for a demonstration, too.
            kind = ConfigError if done.returncode == ConfigError.exit_code else CvmfsError
            raise kind(f"the demonstration failed at the last command (exit code {done.returncode})")

    def _print_lines(self, text: str, limit_lines: int | None = None) -> None:
        lines = text.splitlines()
        for line in lines[:limit_lines]:
            print(f"  {self._short(line)}")
        if limit_lines is not None and len(lines) > limit_lines:
            print(f"  ... and {len(lines) - limit_lines} more")
        sys.stdout.flush()

    def _print_command(self, words: list[str]) -> None:
        line = " ".join(word if word == "&" else shlex.quote(word) for word in words)
        print(f"$ {self._short(line)}", flush=True)

    def _short(self, text: str) -> str:
        """The temporary directory's name is no help to anybody."""
        return text.replace(str(self._top), ".")


def _own(arguments: list[str]) -> list[str]:
    return [sys.executable, "-I", "-m", "cvmfs_py", *arguments]
