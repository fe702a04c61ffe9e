"""`./dev fresh SUITE`: what a newcomer meets, `./dev demo` and `./dev test` in a new Debian, with and without rights.

A minimal root is made once by debootstrap and kept in the user's cache; every form gets a copy of it, with what git
knows of this tree, runs both commands in a container over it, and tells the exit codes and what was skipped. The host's
package sources are carried over: Debian's mirrors and certificates, and how pip finds its index. Runs one after the
other; leaves logs in the cache, and nothing else.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.fresh_sources import Sources, carry_over
from tests.rights import SEARCH_PATH, why_not

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

TOP = Path(__file__).parents[1]
SUITES = ("bookworm", "trixie")
USER = 1000
CANNOT_MOUNT = 3
# `./dev` ends a line with it, so that it can be copied.
FOR_ROOT = re.compile(r"^dev: .*; as root: (.*)$", re.MULTILINE)
TAIL_LINES = 40


@dataclass(frozen=True, slots=True)
class Form:
    """As whom, with which rights, and how the demonstration ends there."""

    meaning: str
    options: tuple[str, ...] = ()
    user: int = 0
    demo_code: int = 0


FORMS = {
    "root": Form("root of a whole machine", ("--privileged",)),
    "user": Form("an ordinary user of a whole machine, without sudo", ("--privileged",), USER),
    "container": Form("root of a container with /dev/fuse", ("--device", "/dev/fuse")),
    "bare": Form("root of a container with nothing", demo_code=CANNOT_MOUNT),
}


def build_parser() -> argparse.ArgumentParser:
    forms = "\n".join(f"  {name:9} {form.meaning}" for name, form in FORMS.items())
    parser = argparse.ArgumentParser(
        prog="./dev fresh",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Run ./dev demo and ./dev test in a new, minimal Debian, once in each form. Needs root,\n"
        f"podman, runc and debootstrap. The forms:\n\n{forms}",
        epilog="examples:\n  ./dev fresh trixie\n  ./dev fresh --only demo bookworm\n"
        "  ./dev fresh --as container --as user bookworm tests/house tests/unit -x",
    )
    parser.add_argument("--as", dest="forms", action="append", choices=FORMS, help="only this form; repeatable")
    parser.add_argument("--only", choices=["demo", "test"], help="only this command")
    parser.add_argument("suite", choices=SUITES, help="the Debian")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="for ./dev test")
    return parser


def main() -> int:
    options = build_parser().parse_args()
    for name in ("root", "mounting", "podman", "runc", "debootstrap"):
        if reason := why_not(name):
            print(f"./dev fresh: it {reason}", file=sys.stderr)
            return 1
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cvmfs-py-tests"
    cache.mkdir(parents=True, exist_ok=True)
    logs = cache / "fresh-logs"
    logs.mkdir(exist_ok=True)
    base = _minimal_root(options.suite, cache)
    is_good = True
    for name in options.forms or FORMS:
        with _Machine.made(base, FORMS[name], options.suite, cache) as machine:
            for command in [options.only] if options.only else ["demo", "test"]:
                words = [command, *(options.arguments if command == "test" else [])]
                is_good &= _show(machine, options.suite, name, words, logs)
    print(f"\n{'everything is as it should be' if is_good else 'not everything is as it should be'}")
    return 0 if is_good else 1


def _show(machine: _Machine, suite: str, name: str, words: Sequence[str], logs: Path) -> bool:
    """Runs a command there, and tells how it went."""
    log = logs / f"{suite}-{name}-{words[0]}.log"
    wanted = machine.form.demo_code if words[0] == "demo" else 0
    print(f"\n{suite}, {machine.form.meaning}: ./dev {' '.join(words)}", flush=True)
    started = time.monotonic()
    if machine.form.user:
        machine.obey_what_root_is_told(words[0], log)
    code = machine.run_dev(words, log)
    print(f"  exit code {code} (wanted: {wanted}) after {time.monotonic() - started:.0f} s; all of it in {log}")
    lines = log.read_text(errors="replace").splitlines()
    if code != wanted:
        print("\n".join(f"  | {line}" for line in lines[-TAIL_LINES:]))
    else:
        print("\n".join(f"  {line}" for line in _outcome(lines)))
    return code == wanted


def _outcome(lines: Sequence[str]) -> list[str]:
    """What was passed, and what was skipped for which reason."""
    first = next((number for number, line in enumerate(lines) if re.search(r"= \d+ skipped: ", line)), len(lines) - 1)
    return [line.strip("= ") if line.startswith("=") else line for line in lines[first:]]


# --- the machine


def _minimal_root(suite: str, cache: Path) -> Path:
    """Made when it is not there yet."""
    root = cache / f"fresh-{suite}"
    if not root.exists():
        print(f"making a minimal {suite} in {root}", flush=True)
        draft = Path(tempfile.mkdtemp(prefix=f"{root.name}.", dir=cache))
        try:
            command = ["debootstrap", "--variant=minbase", suite, str(draft)]
            subprocess.run(command, env={**os.environ, "PATH": SEARCH_PATH}, stdout=subprocess.DEVNULL, check=True)
            draft.chmod(0o755)
            draft.rename(root)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return root


def _bring_packages(source: Path, target: Path) -> None:
    """What apt has fetched once need not be fetched again. Links: two machines cannot share apt's directory itself."""
    target.mkdir(parents=True, exist_ok=True)
    for path in source.glob("*.deb"):
        if not (target / path.name).exists():
            os.link(path, target / path.name)


class _Machine:
    """A copy of the minimal root, and what runs in it."""

    def __init__(self, place: Path, state: str, form: Form, sources: Sources) -> None:
        self.form = form
        self._place = place
        self._state = state
        self._sources = sources
        self._home = "/home/newcomer" if form.user else "/root"
        self._tree = f"{self._home}/cvmfs-py"

    @classmethod
    @contextmanager
    def made(cls, base: Path, form: Form, suite: str, cache: Path) -> Iterator[_Machine]:
        place = Path(tempfile.mkdtemp(prefix="fresh-run.", dir=cache))
        state = tempfile.mkdtemp(prefix="fresh.", dir="/tmp")  # podman takes short names only
        try:
            root = place / "root"
            subprocess.run(["cp", "-a", "--reflink=auto", str(base), str(root)], check=True)
            machine = cls(place, state, form, carry_over(root, suite))
            machine._copy_tree(root)
            kept, used = cache / f"fresh-{suite}-archives", root / "var/cache/apt/archives"
            _bring_packages(kept, used)
            yield machine
            _bring_packages(used, kept)
        finally:
            # Of podman's own files some may be mounts if it was killed; a file system is not followed.
            subprocess.run(["rm", "-rf", "--one-file-system", str(place), state], check=False)

    def _copy_tree(self, root: Path) -> None:
        """What git knows, as in a clone, with what was changed since."""
        tree = root / self._tree.lstrip("/")
        tree.mkdir(parents=True)
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=TOP, capture_output=True, check=True).stdout
        there = [name for name in listed.split(b"\0") if name and os.path.lexists(os.path.join(os.fsencode(TOP), name))]
        command = ["xargs", "-0", "cp", "-P", "--preserve=mode,timestamps", "--parents", "-t", str(tree)]
        subprocess.run(command, cwd=TOP, input=b"\0".join(there), check=True)
        if self.form.user:
            home = root / self._home.lstrip("/")
            subprocess.run(["chown", "-R", f"{self.form.user}:{self.form.user}", str(home)], check=True)

    def obey_what_root_is_told(self, command: str, log: Path) -> None:
        """An ordinary user is told what root must install: root does just that."""
        self.run_dev([command, *(["--version"] if command == "test" else [])], log)
        told = FOR_ROOT.search(log.read_text(errors="replace"))
        if told is not None:
            print(f"  root is told: {told[1]}", flush=True)
            self._run(f"export DEBIAN_FRONTEND=noninteractive; {told[1]}", log)

    def run_dev(self, words: Sequence[str], log: Path) -> int:
        script = './dev "$@"\nexit $?'  # the shell stays, and buries the dead, as the first process should
        if not self.form.user:
            return self._run(f"cd {self._tree}\n{script}", log, words)
        account = f"newcomer:x:{self.form.user}:{self.form.user}::{self._home}:/bin/sh"
        become = f"setpriv --reuid={self.form.user} --regid={self.form.user} --clear-groups"
        prepare = f"""
            grep -q newcomer /etc/passwd || echo {account} >>/etc/passwd
            chmod 666 /dev/fuse
            export USER=newcomer
            cd {self._tree}
            {become} sh -c '{script}' sh "$@"
            exit $?"""
        return self._run(prepare, log, words)

    def _run(self, script: str, log: Path, words: Sequence[str] = ()) -> int:
        """A shell script in a container; the exit code."""
        name = f"cvmfs-py-fresh-{os.getpid()}"
        podman = ["podman", f"--root={self._place}/storage", f"--runroot={self._state}", "--log-level=error"]
        podman += ["--runtime", shutil.which("runc", path=SEARCH_PATH) or "runc"]
        environment = {**self._sources.environment, "HOME": self._home}
        limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096"]
        command = [*podman, "run", "--rm", "--name", name, "--network", "host", "--log-driver", "none", *limits]
        command += [word for place in self._sources.places for word in ("-v", f"{place}:{place}:ro")]
        command += [word for key, value in environment.items() for word in ("-e", f"{key}={value}")]
        command += [*self.form.options, "--rootfs", f"{self._place}/root", "/bin/sh", "-c", script, "sh", *words]
        path = {**os.environ, "PATH": SEARCH_PATH}
        with log.open("wb") as stream:
            try:
                done = subprocess.run(command, env=path, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream)
            finally:
                subprocess.run([*podman, "rm", "-f", "-i", name], env=path, capture_output=True, check=False)
        return done.returncode


if __name__ == "__main__":
    sys.exit(main())
