"""The recipes of the README: every line of its `sh` blocks, and what the machine needs on which they are tried.

A recipe that nothing is said about here is run as it is, and has to end with 0. What it needs besides is said in
`PREPARED`, by the words with which it begins; what cannot be run at all in `NOT_RUN`, with the reason. Both must only
name what the README has: an entry without a recipe is an error.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"
FQRN = "sft.cern.ch"
OWN = "my.example.org"
SERVERS = ("s1.example.org", "s2.example.org")
PROXIES = ("squid1", "squid2")
_BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Recipe:
    line: int  # of the README
    command: str  # word for word

    def begins(self, words: str) -> bool:
        return self.command == words or self.command.startswith(f"{words} ")


@dataclass(frozen=True, slots=True)
class Preparation:
    """What surrounds a recipe. The scripts are of the same user, in the same directory; they have to end with 0."""

    before: str = ""
    then: str = ""  # shows that it had its effect
    said: str = ""  # in its output
    served: int = 0  # the port at which OWN is served as long as it runs
    port: int = 0  # it stays, and is ready when this port answers
    changed: tuple[tuple[str, str], ...] = ()  # names of the README, and of the machine


PREPARED = {
    "cvmfs-py mount sft.cern.ch /cvmfs/sft.cern.ch": Preparation(
        then="cat /cvmfs/sft.cern.ch/lcg/README", said="sft.cern.ch is mounted at /cvmfs/sft.cern.ch"
    ),
    "cvmfs-py mount sft.cern.ch@v1 ~/sft-v1": Preparation(then="cat ~/sft-v1/lcg/README", said="sft-v1"),
    "cvmfs-py list": Preparation(said="sft.cern.ch"),
    "cvmfs-py umount sft.cern.ch@v1": Preparation(
        then="! mountpoint -q ~/sft-v1 && mountpoint -q /cvmfs/sft.cern.ch",
    ),
    "cvmfs-py umount /cvmfs/sft.cern.ch": Preparation(then="! mountpoint -q /cvmfs/sft.cern.ch"),
    "cvmfs-py mount --all /cvmfs": Preparation(then="cat /cvmfs/sft.cern.ch/lcg/README"),
    "cvmfs-py umount --all": Preparation(then="! mountpoint -q /cvmfs"),
    "cvmfs-py exec sft.cern.ch -- ls /cvmfs/sft.cern.ch": Preparation(said="lcg"),
    "cvmfs-py exec sft.cern.ch@v1 -- python3": Preparation(said="the example ran"),
    "cvmfs-py cat sft.cern.ch:/lcg/README": Preparation(said="software of many kinds"),
    "cvmfs-py cp -r sft.cern.ch:/lcg/releases/gcc ./gcc": Preparation(then="test -x gcc/bin/gcc"),
    "cvmfs-py cp -r sft.cern.ch@v1:/lcg/releases/ROOT ./ROOT": Preparation(then="test -f ROOT/lib/libCore.so"),
    "cvmfs-py ls --root-hash": Preparation(
        changed=(("02d8bfdd141366e0d11131eb179316290c7b1479", "$(cat /srv/root-hash)"),), said="README"
    ),
    "cvmfs-py ls --key my.pub http://localhost:8000": Preparation(served=8000),
    "cvmfs-py repo publish ./my.example.org --from ./software": Preparation(
        before="mkdir -p software && echo new >software/file"
    ),
    "cvmfs-py config add my.example.org": Preparation(served=8000),
    "cvmfs-py ls my.example.org": Preparation(served=8000, said="file"),
    "cvmfs-py serve ./my.example.org --port 8000": Preparation(port=8000),
    "cvmfs-py ls --key my.example.org.keys/my.example.org.pub": Preparation(said="file"),
    "cvmfs-py ls -o CVMFS_ALIEN_CACHE=/shared/preloaded": Preparation(before="touch /shared/preloaded/.cvmfscache"),
    "cvmfs-py ls -o CVMFS_PY_LOWER_CACHES=/shared/a:/shared/b": Preparation(
        before=f"cvmfs-py ls --cache-dir /shared/a {FQRN} && cvmfs-py ls --cache-dir /shared/b {FQRN}"
    ),
    "mount -t cvmfs sft.cern.ch": Preparation(
        then="cat /cvmfs/sft.cern.ch/lcg/README && umount /cvmfs/sft.cern.ch",
        before="mkdir -p /cvmfs/sft.cern.ch",
    ),
}

# Not on that machine; the reason.
NOT_RUN = {
    "./dev": "makes the environment that this test runs in, and runs tests; ./dev fresh is what tries it",
    "pip install .": "needs a package index",
    "pipx install .": "needs a package index",
    "/opt/cvmfs-py/bin/pip install .": "needs a package index",
    "ln -s /opt/cvmfs-py/bin/cvmfs-py": "changes the machine's /usr; test_installation installs",
    "apptainer exec": "no apptainer; test_containers hands descriptors over in the same way",
    "podman run": "in test_recipes_of_containers, with a root directory in place of IMAGE",
}
NOT_FOR_USERS = {
    "ln -s": "writes to /sbin",
    "mount -t cvmfs": "only root may call mount(8) for it",
}
CONTAINER_IMAGE = "IMAGE"  # in its place readers name an image of theirs


def load_recipes() -> list[Recipe]:
    """In the order of the page. A line that ends with a backslash goes on in the next."""
    text = README.read_text()
    found = []
    for block in _BLOCK.finditer(text):
        number = text.count("\n", 0, block.start(1)) + 1
        command, first = "", number
        for offset, line in enumerate(block[1].splitlines()):
            first = first if command else number + offset
            command += line
            if command.endswith("\\"):
                command = command[:-1]
            elif command.strip():
                found.append(Recipe(first, command.strip()))
                command = ""
    return found


def recipes_for(user_id: int) -> list[Recipe]:
    """Those that are run as this user."""
    omitted = [*NOT_RUN, *(NOT_FOR_USERS if user_id else ())]
    return [recipe for recipe in load_recipes() if not any(map(recipe.begins, omitted))]


def preparation_of(recipe: Recipe) -> Preparation:
    """The one with the most words."""
    fitting = [words for words in PREPARED if recipe.begins(words) or recipe.command.startswith(words)]
    return PREPARED[max(fitting, key=len)] if fitting else Preparation()


def unused_entries() -> list[str]:
    recipes = load_recipes()
    names = (*NOT_RUN, *NOT_FOR_USERS, *PREPARED)
    return [words for words in names if not any(recipe.command.startswith(words) for recipe in recipes)]
