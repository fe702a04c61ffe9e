"""Whether the name of a parameter looks like a misspelt one.

Pure. An unknown name alone is no fault: links in a repository may depend on parameters that sites make up.
"""

from __future__ import annotations

import re

from cvmfs_py.config.parameter_table import IGNORED_NAMES, UNUSED_NAMES, specs

_CACHE_INSTANCE = re.compile(
    r"CVMFS_CACHE_[A-Za-z0-9_]+_(TYPE|SHARED|ALIEN|SERVER_MODE|QUOTA_LIMIT|BASE|DIR|WORKSPACE|"
    r"REFCOUNT|SIZE|MALLOC|UPPER|LOWER|LOWER_READONLY|CMDLINE|LOCATOR)\Z"
)


def find_intended(name: str) -> str | None:
    """The name that was probably meant; None for one that is known or like no other."""
    if not name.startswith("CVMFS_") or _CACHE_INSTANCE.match(name):
        return None
    names = (*specs(), *IGNORED_NAMES, *UNUSED_NAMES)
    if name in names:
        return None
    import difflib

    similar = difflib.get_close_matches(name, names, n=1, cutoff=0.85)
    return similar[0] if similar else None
