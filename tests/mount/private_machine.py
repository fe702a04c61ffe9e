"""One machine of its own for a test: a shell script in namespaces, with an /etc, a /run and a /var/log of its own.

A small repository is served, and `MNT` is a directory for mounts, where the configuration repository is looked for as
well. Daemons end with the script.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cvmfs_py.config.domains import load_knowledge
from tests.simulator.command import PROGRAM, ROOT
from tests.simulator.publisher import OwnRepository, write_tree
from tests.simulator.web import Nginx

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

GOOD = "good.test.org"
OF_THE_MACHINE = ("group", "hosts", "ld.so.cache", "nsswitch.conf", "passwd", "resolv.conf")
LIMIT_S = 60


class PrivateMachine:
    """One repository, and a directory that every repository is mounted at, which is CVMFS_MOUNT_DIR as well."""

    def __init__(self, directory: Path, url: str, key: Path) -> None:
        self.directory = directory
        self.top = directory / "cvmfs"
        self.top.mkdir()
        self.etc = directory / "etc"
        self.etc.mkdir()
        for name in OF_THE_MACHINE:
            if os.path.exists(f"/etc/{name}"):
                shutil.copy(f"/etc/{name}", self.etc)
        domains = load_knowledge().domains.values()
        known = [server for domain in domains for server in (*domain.servers, *domain.cdn_servers)]
        with (self.etc / "hosts").open("a") as hosts:  # nobody listens there, and no name server is asked
            hosts.writelines(f"127.0.0.1 {urlsplit(server).hostname}\n" for server in known)
        self.key = key
        self.url = url
        self.environment = {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "PYTHONPATH": str(ROOT),
            "HOME": str(directory),
            "MNT": str(self.top),
            "CVMFS_MOUNT_DIR": str(self.top),
            "CVMFS_HTTP_PROXY": "DIRECT",
            "CVMFS_TIMEOUT_DIRECT": "1",
            "CVMFS_MAX_RETRIES": "0",
        }
        self.good = {"CVMFS_SERVER_URL": f"{url}/cvmfs/@fqrn@", "CVMFS_PUBLIC_KEY": str(key)}

    def configure(self, files: Mapping[str, str]) -> None:
        """Files below /etc/cvmfs. The system's sort first, whatever they say."""
        for name, text in files.items():
            path = self.etc / "cvmfs" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def run(self, script: str, **environment: str) -> list[str]:
        """The lines that it prints. `see NAME` shows how looking into a repository ends; 124 would be: not at all."""
        functions = f"""
            mount -t tmpfs tmpfs /run; mount -t tmpfs tmpfs /var/log; mount --bind {shlex.quote(str(self.etc))} /etc
            client() {{ timeout -k 1 40 {shlex.join(PROGRAM)} "$@"; }}
            see() {{ code=0; timeout -k 1 30 ls $MNT/$1 >seen 2>&1 || code=$?; echo "$1 $code $(head -n1 seen)"; }}
            pid() {{ client list | sed -n "s|^[^ ]* *[^ ]* *[^ ]* *[^ ]* *\\([0-9]*\\) .* $PWD/$1$|\\1|p"; }}
            log() {{ cat /var/log/cvmfs-py/*; }}
            cd {shlex.quote(str(self.directory))}
        """
        done = subprocess.run(
            ["unshare", "-m", "-p", "-f", "--kill-child", "--mount-proc", "/bin/sh", "-ec", functions + script],
            env=self.environment | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout.splitlines()


@contextlib.contextmanager
def private_machine(tmp_path: Path) -> Iterator[PrivateMachine]:
    own = OwnRepository(tmp_path, GOOD)
    write_tree(tmp_path / "tree", {"name": b"good"})
    own.publish_directory(tmp_path / "tree")
    (tmp_path / "www" / "cvmfs").mkdir(parents=True)
    (tmp_path / "www" / "cvmfs" / GOOD).symlink_to(own.storage)
    with Nginx(tmp_path / "www") as web:
        yield PrivateMachine(tmp_path, web.url, next(tmp_path.rglob("*.pub")))
