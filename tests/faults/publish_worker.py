"""A publisher to be killed: `python -m tests.faults.publish_worker DIR TREE`.

Says `ready` when everything is imported, and publishes when it is told to go on: so that the time until it is killed is
spent on publishing. A process group of its own is for who starts it.
"""

from __future__ import annotations

import sys

from cvmfs_py.cli import repo_publish
from cvmfs_py.cli.app import run
from cvmfs_py.publish import from_directory, publication

LOADED = (repo_publish, from_directory, publication)


def main() -> int:
    storage, tree = sys.argv[1:]
    print("ready", flush=True)
    sys.stdin.readline()
    return run(["repo", "publish", storage, "--from", tree, "--quiet", "--jobs", "2"])


if __name__ == "__main__":
    sys.exit(main())
