"""A machine for one person, on which the recipes of the README are tried one after the other: a process of its own.

    python -m tests.mount.recipes_machine DIRECTORY UID     # a line of JSON for every recipe

DIRECTORY holds what `test_recipes` has published. Started as root in mount, process and network namespaces that nobody
else sees: it makes a root directory in memory that shows the machine's programs and nothing else of it, names for the
servers and proxies of the recipes, and a home. All of it ends with the namespaces.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cvmfs_py.fuse import syscalls
from cvmfs_py.fuse.syscalls import MountFlag
from tests.mount.recipes import FQRN, OWN, PROXIES, SERVERS, Recipe, preparation_of, recipes_for
from tests.simulator.squid import Squid
from tests.simulator.web import wait_for_port

if TYPE_CHECKING:
    from collections.abc import Iterator

TOP = Path(__file__).parents[2]
LIMIT_S = 30  # for one recipe
HANGS = -1
# What the person gets for himself; the rest of the machine is shown as it is, and cannot be changed.
PRIVATE = ("cvmfs", "home", "media", "mnt", "opt", "root", "run", "sbin", "shared", "srv", "tmp", "var")
KERNEL = ("dev", "proc", "sys")


def main(published: Path, user_id: int) -> None:
    bring_up_loopback()
    make_root(published)
    home = make_home(user_id)
    environment = {
        "HOME": str(home),
        "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
        "LC_ALL": "C.UTF-8",
        "XDG_RUNTIME_DIR": f"/run/user/{user_id}",
        "http_proxy": f"http://{PROXIES[0]}:3128",  # for `auto`
    }
    with contextlib.ExitStack() as held:
        held.enter_context(Squid(port=3128))
        held.enter_context(served(80, FQRN, OWN))
        for recipe in recipes_for(user_id):
            port = preparation_of(recipe).served
            with served(port, OWN) if port else contextlib.nullcontext():
                result = run(recipe, home, environment, user_id, held)
            print(json.dumps(result), flush=True)
            if result["code"] == HANGS:
                break  # and with this process everything that waits


@contextlib.contextmanager
def served(port: int, *names: str) -> Iterator[None]:
    """These repositories, for the length of the block."""
    words = ["cvmfs-py", "serve", "-q", "--port", str(port), *(f"/srv/{name}" for name in names)]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    try:
        wait_for_port(port, process)
        yield
    finally:
        process.kill()
        process.wait()


def run(
    recipe: Recipe, home: Path, environment: dict[str, str], user_id: int, held: contextlib.ExitStack
) -> dict[str, Any]:
    preparation = preparation_of(recipe)
    command = recipe.command
    for name, here in preparation.changed:
        assert name in command, recipe
        command = command.replace(name, here)
    become = [] if user_id == 0 else ["setpriv", f"--reuid={user_id}", f"--regid={user_id}", "--clear-groups"]
    before, then = (
        f"{{ {script}; }} >&2 || exit 99\n" if script else "" for script in (preparation.before, preparation.then)
    )
    begun = time.monotonic()
    if preparation.port:
        process = subprocess.Popen(
            [*become, "sh", "-c", f"{before}exec {command}"],
            cwd=home,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        held.callback(process.kill)
        wait_for_port(preparation.port, process)
        code, output, errors = 0, preparation.said, ""
    else:
        # The shell of the preparations is the recipe's, so that jobs and variables are the same.
        script = f"{before}{command}\ncode=$?; test $code = 0 || exit $code\n{then}"
        code, output, errors = run_script([*become, "sh", "-c", script], home, environment)
    return {
        "line": recipe.line,
        "command": recipe.command,
        "code": code,
        "output": output[-4000:],
        "errors": errors[-4000:],
        "is_told": preparation.said in output,
        "elapsed_s": round(time.monotonic() - begun, 2),
    }


def run_script(words: list[str], home: Path, environment: dict[str, str]) -> tuple[int, str, str]:
    """Files hold what it says: a program that waits in the kernel for ever would keep pipes open."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            words, cwd=home, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=errors
        )
        try:
            code = process.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            code = HANGS
        for stream in (output, errors):
            stream.seek(0)
        return code, output.read().decode(errors="replace"), errors.read().decode(errors="replace")


def bring_up_loopback() -> None:
    """What `ip link set lo up` does, where there is no such program."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sh14x", b"lo", 0x41)  # IFF_UP | IFF_RUNNING
        fcntl.ioctl(any_socket, 0x8914, request)  # SIOCSIFFLAGS


def make_root(published: Path) -> None:
    """In memory, with the machine's directories bound into it; what was there before is gone."""
    new = Path("/tmp")  # whatever is published is reached by its descriptor from here on
    published_fd = os.open(published, os.O_PATH | os.O_DIRECTORY)
    needed = {
        path: os.open(path, os.O_PATH) for path in (TOP, Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve())
    }
    syscalls.mount("machine", str(new), "tmpfs", MountFlag(0), "mode=755")
    for entry in os.scandir("/"):
        place = new / entry.name
        if entry.name in PRIVATE:
            continue
        if entry.is_symlink():
            place.symlink_to(os.readlink(entry.path))
        elif entry.is_dir():
            place.mkdir()
            bind(entry.path, place)
            if entry.name not in KERNEL:
                syscalls.mount("", str(place), "", MountFlag.REMOUNT | MountFlag.BIND | MountFlag.READ_ONLY)
    for name in PRIVATE:
        if name != "cvmfs":
            (new / name).mkdir(exist_ok=True)
    for name in ("tmp", "shared", "opt"):
        (new / name).chmod(0o1777)
    for path, fd in needed.items():
        place = new / path.relative_to("/")
        if path.parts[1] in PRIVATE or not is_open(path):
            place.mkdir(parents=True, exist_ok=True)
            bind(f"/proc/self/fd/{fd}", place)
        os.close(fd)
    for name in os.listdir(f"/proc/self/fd/{published_fd}"):
        source, place = f"/proc/self/fd/{published_fd}/{name}", new / "srv" / name
        if os.path.isdir(source):
            place.mkdir()
            bind(source, place)
        else:
            shutil.copy(source, place)
    os.close(published_fd)
    for name in ("run/user", "var/lib", "var/log", "var/tmp", "var/cache", "shared/preloaded", "shared/a", "shared/b"):
        (new / name).mkdir(parents=True, exist_ok=True)
    for program in os.listdir("/usr/sbin"):
        (new / "sbin" / program).symlink_to(f"/usr/sbin/{program}")
    give_files(new)
    (new / "old").mkdir()
    syscalls.pivot_root(str(new), str(new / "old"))
    os.chdir("/")
    syscalls.unmount("/old", lazily=True)
    (Path("/") / "old").rmdir()


def give_files(new: Path) -> None:
    """Names, a device that everybody may open, and no configuration of this machine."""
    (new / "srv/hosts").write_text("".join(f"127.0.0.1 {name}\n" for name in ("localhost", *SERVERS, *PROXIES)))
    bind(str(new / "srv/hosts"), new / "etc/hosts")
    if os.path.isdir("/etc/cvmfs"):
        syscalls.mount("none", str(new / "etc/cvmfs"), "tmpfs", MountFlag(0), "mode=755")
    if os.stat("/dev/fuse").st_mode & 0o006 != 0o006:
        os.mknod(new / "srv/fuse", 0o20666, os.makedev(10, 229))
        os.chmod(new / "srv/fuse", 0o666)
        bind(str(new / "srv/fuse"), new / "dev/fuse")


def make_home(user_id: int) -> Path:
    """With the configuration that stands for what is built in of the real repository."""
    home = Path("/root" if user_id == 0 else "/home/newcomer")
    etc = home / ".config/cvmfs-py"
    (etc / "config.d").mkdir(parents=True, exist_ok=True)
    (etc / "default.conf").write_text("CVMFS_HTTP_PROXY=DIRECT\nCVMFS_CONFIG_REPOSITORY=\n")
    (etc / f"config.d/{FQRN}.conf").write_text(
        f"CVMFS_SERVER_URL=http://{SERVERS[0]}/cvmfs/@fqrn@\nCVMFS_PUBLIC_KEY=/srv/{FQRN}.pub\nCVMFS_KEYS_DIR=\n"
    )
    shutil.copy(f"/srv/{OWN}.pub", home / "my.pub")
    runtime = Path(f"/run/user/{user_id}")
    runtime.mkdir(mode=0o700)
    theirs = [runtime, *Path("/shared").iterdir(), home, *home.rglob("*")]
    if user_id != 0:
        Path("/cvmfs").mkdir()  # as the README says, somebody who may has made it for the user
        theirs.append(Path("/cvmfs"))
    for path in theirs:
        if not str(path).startswith(str(TOP)):
            os.chown(path, user_id, user_id)
    return home


def is_open(path: Path) -> bool:
    """Whether everybody may enter it."""
    return all(place.stat().st_mode & 0o001 for place in (path, *path.parents))


def bind(source: str, place: Path) -> None:
    syscalls.mount(source, str(place), "", MountFlag.BIND | MountFlag.RECURSIVE)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
