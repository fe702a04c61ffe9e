"""`cvmfs-py example`: lists and prints the examples for other programs that come with this one. Writes no files."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from cvmfs_py.cli import options as common
from cvmfs_py.cli.output import table
from cvmfs_py.errors import UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

EXAMPLES = {
    "auto.cvmfs": "the map that automount asks: /etc/auto.cvmfs, executable",
    "cvmfs.autofs": "names that map to automount: /etc/auto.master.d/cvmfs.autofs",
    "fstab.example": "lines for /etc/fstab",
    "nginx.conf": "serve repositories with nginx",
    "containers/Containerfile": "an image whose commands see every repository",
    "containers/apptainer.md": "command lines for Apptainer",
    "containers/kubernetes.yaml": "manifests for Kubernetes",
    "systemd/cvmfs-py@.service": "a service for each repository: /etc/systemd/system",
    "systemd/cvmfs-sft.cern.ch.mount": "a mount unit for one repository",
    "systemd/cvmfs-sft.cern.ch.automount": "the same at its first use",
}


def build_parser(prog: str) -> argparse.ArgumentParser:
    parser = common.new_parser(
        prog,
        "Print an example of a file for another program: systemd, automount, fstab, nginx, containers. Without a name"
        " they are listed.",
        "cvmfs-py example",
        more=(
            "cvmfs-py example fstab.example",
            "cvmfs-py example containers/Containerfile",
        ),
    )
    parser.add_argument("name", metavar="NAME", nargs="?", help="as it is listed, or only its last part")
    return parser


def run(options: argparse.Namespace) -> int:
    if options.name is None:
        for line in table([[name, purpose] for name, purpose in EXAMPLES.items()]):
            print(line)
        return 0
    from cvmfs_py.config.domains import built_in_directory

    path = built_in_directory() / find_example(options.name)
    sys.stdout.write(path.read_text("utf-8"))
    return 0


def find_example(name: str) -> str:
    """The full name; a last part is enough, since no two are the same. UsageError names what could be meant."""
    wanted = name.removeprefix("conf/").strip("/")
    found = [known for known in EXAMPLES if wanted in (known, known.rpartition("/")[2])]
    if found:
        return found[0]
    raise UsageError(f"there is no example {name!r}; {_hint(wanted)}")


def _hint(wanted: str) -> str:
    import difflib

    last_parts = {known.rpartition("/")[2]: known for known in EXAMPLES}
    close: Sequence[str] = [known for known in EXAMPLES if wanted and wanted.lower() in known.lower()]
    if not close:
        matches = difflib.get_close_matches(wanted, [*EXAMPLES, *last_parts], n=3)
        close = list(dict.fromkeys(last_parts.get(match, match) for match in matches))
    return f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(EXAMPLES)}"
