"""Whether the name of a parameter looks like a misspelt one.

Pure. An unknown name alone is no fault: links in a repository may depend on parameters that sites make up.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cvmfs_py.config.parameter_table import IGNORED_NAMES, UNUSED_NAMES, specs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_CACHE_INSTANCE = re.compile(
    r"CVMFS_CACHE_[A-Za-z0-9_]+_(TYPE|SHARED|ALIEN|SERVER_MODE|QUOTA_LIMIT|BASE|DIR|WORKSPACE|"
    r"REFCOUNT|SIZE|MALLOC|UPPER|LOWER|LOWER_READONLY|CMDLINE|LOCATOR)\Z"
)


def tell_misspelt(names: Iterable[str]) -> Iterator[str]:
    """For people, which names that were given as -o NAME=VALUE are probably others."""
    for name in names:
        intended = find_intended(name)
        if intended is None and not name.startswith("CVMFS_") and name not in specs():
            intended = find_intended(f"CVMFS_{name}", or_itself=True)
        if intended is not None:
            yield f"-o {name} is unknown; is {intended} meant?"


def find_intended(name: str, *, or_itself: bool = False) -> str | None:
    """The name that was probably meant; None for one that is known, unless it is asked for, or like no other."""
    if not name.startswith("CVMFS_") or _CACHE_INSTANCE.match(name):
        return None
    names = (*specs(), *IGNORED_NAMES, *UNUSED_NAMES)
    if name in names:
        return name if or_itself else None
    import difflib

    similar = difflib.get_close_matches(name, names, n=1, cutoff=0.85)
    return similar[0] if similar else None
