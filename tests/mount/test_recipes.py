"""Every recipe of the README works as it is printed, as root and as an ordinary user, with repositories of our own."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cvmfs_py.fuse import syscalls
from tests.mount.containers import TOP, container_command
from tests.mount.mounting import Mounted
from tests.mount.recipes import CONTAINER_IMAGE, FQRN, OWN, load_recipes, recipes_for, unused_entries
from tests.rights import SEARCH_PATH
from tests.simulator.command import Client
from tests.simulator.repository import Repository
from tests.simulator.tree import Directory, File
from tests.simulator.web import Nginx

LIMIT_S = 150
USER = 1000
README_TEXT = b"software of many kinds\n"


def tree(version: bytes) -> Directory:
    releases = {
        "gcc": Directory({"bin": Directory({"gcc": File(b"#!/bin/sh\n" + version, mode=0o755)})}),
        "ROOT": Directory({"lib": Directory({"libCore.so": File(b"core" + version)})}, nested=True),
    }
    lcg = {
        "README": File(README_TEXT),
        "etc": Directory({"profile": File(version), "site.conf": File(version)}),
        "example.py": File(b"print('the example ran')\n"),
        "releases": Directory(releases),
    }
    return Directory({"lcg": Directory(lcg)})


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """In place of the real one; its first tag is older than the date of the recipe."""
    made = Repository.create(tmp_path_factory.mktemp("sft"), FQRN)
    made.publish(tree(b"1"), tag="v1")
    made.publish(tree(b"2"), tag="v2")
    return made


@pytest.fixture(scope="module")
def published(repository: Repository, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the machine needs of it."""
    place = tmp_path_factory.mktemp("published")
    own = Repository.create(tmp_path_factory.mktemp("own"), OWN)
    own.publish(Directory({"file": File(b"x")}), tag="v1")
    for each in (repository, own):
        shutil.copytree(each.document_root / "cvmfs" / each.fqrn, place / each.fqrn)
        shutil.copy(each.master_public_key, place / f"{each.fqrn}.pub")
    (place / "root-hash").write_text(str(repository.revisions[0].root_hash))
    return place


def test_nothing_is_said_of_recipes_that_are_not_there() -> None:
    assert not unused_entries(), "tests/mount/recipes.py names what the README does not have"
    assert len(recipes_for(0)) > 20


@pytest.mark.needs("containers", "nginx")
def test_recipes_of_containers(repository: Repository, tmp_path: Path) -> None:
    """With a Debian's root directory and its Python for IMAGE, and a directory of the test for the machine's /cvmfs."""
    place, etc, program = tmp_path / "cvmfs", tmp_path / "etc", tmp_path / "cvmfs-py"
    place.mkdir()
    etc.mkdir()
    program.write_text('#!/bin/sh\nexec python3 -I -m cvmfs_py "$@"\n')
    program.chmod(0o755)
    recipes = [recipe for recipe in load_recipes() if recipe.begins("podman run")]
    assert recipes
    syscalls.mount(str(place), str(place), "", syscalls.MountFlag.BIND)
    try:
        syscalls.mount("", str(place), "", syscalls.MountFlag.SHARED)  # as an ordinary machine's / is
        with Nginx(repository.document_root) as web:
            (etc / "default.conf").write_text(
                f"CVMFS_SERVER_URL={web.url}/cvmfs/@fqrn@\nCVMFS_PUBLIC_KEY=/keys/{FQRN}.pub\nCVMFS_HTTP_PROXY=DIRECT\n"
                "CVMFS_CONFIG_REPOSITORY=\n"
            )
            shown = {
                etc: "/etc/cvmfs",
                repository.master_public_key.parent: "/keys",
                program: "/usr/local/bin/cvmfs-py",
            }
            volumes = [word for source, inside in shown.items() for word in ("-v", f"{source}:{inside}:ro")]
            client = Client(tmp_path, FQRN, [web.url], repository.master_public_key)
            with Mounted(client, place / FQRN):
                for recipe in recipes:
                    words = shlex.split(recipe.command, comments=True)
                    image = words.index(CONTAINER_IMAGE)
                    options = [word.replace("/cvmfs:/cvmfs:", f"{place}:/cvmfs:") for word in words[2:image]]
                    options.remove("--rm")  # given already
                    command = container_command([*volumes, *options], words[image + 1 :])
                    environment = {**os.environ, "PATH": SEARCH_PATH}
                    done = subprocess.run(
                        command,
                        env=environment,
                        capture_output=True,
                        text=True,
                        timeout=60,
                        check=False,
                    )
                    assert done.returncode == 0, (recipe, done)
                    assert "lcg" in done.stdout, (recipe, done)
    finally:
        syscalls.unmount(str(place), lazily=True)


@pytest.mark.needs("mounting", "process namespaces", "other users", "squid")
@pytest.mark.parametrize("user_id", [0, USER], ids=["root", "user"])
def test_recipes(published: Path, user_id: int) -> None:
    namespaces = ["unshare", "--mount", "--pid", "--net", "--fork", "--kill-child", "--mount-proc"]
    done = subprocess.run(
        [*namespaces, sys.executable, "-m", "tests.mount.recipes_machine", str(published), str(user_id)],
        cwd=TOP,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{SEARCH_PATH}", "PYTHONPATH": str(TOP)},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    results = [json.loads(line) for line in done.stdout.splitlines()]
    wrong = [
        f"README.md:{result['line']}: {result['command']}\n  ended with {result['code']}:"
        f" {result['errors'].strip() or result['output'].strip()!r}"
        for result in results
        if result["code"] != 0 or not result["is_told"]
    ]
    assert not wrong, "\n".join([*wrong, "what a recipe needs to run is said in tests/mount/recipes.py"])
    assert done.returncode == 0, done.stderr
    assert len(results) == len(recipes_for(user_id))
