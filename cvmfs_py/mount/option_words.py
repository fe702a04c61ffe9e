"""The words after `-o` of mount(8) and of `cvmfs2`: which there are, what each is for. Pure.

A word that nobody knows is an error, because a misspelt `tag` must not mount the newest revision; mount's `-s` passes
it over.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cvmfs_py.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# of the reference client, without a value
_FLAGS = frozenset(
    {
        "allow_other",
        "cvmfs_suid",
        "debug",
        "foreground",
        "fuse_debug",
        "grab_mountpoint",
        "parse",
        "remount",
        "simple_options_parsing",
        "system_mount",
    }
)
_VALUES = frozenset({"config", "uid", "gid", "tag", "date", "root_hash"})

# for the kernel; what is served is read-only, without devices and of one owner's choice anyway
_KERNEL_FLAGS = frozenset(
    {
        "ro",
        "suid",
        "nosuid",
        "dev",
        "nodev",
        "exec",
        "noexec",
        "atime",
        "noatime",
        "diratime",
        "nodiratime",
        "relatime",
        "norelatime",
        "strictatime",
        "nostrictatime",
        "lazytime",
        "nolazytime",
        "symfollow",
        "nosymfollow",
        "sync",
        "async",
        "dirsync",
        "silent",
        "loud",
        "mand",
        "nomand",
        "default_permissions",
    }
)
_KERNEL_VALUES = frozenset({"max_read", "fsname", "subtype", "context", "fscontext", "defcontext", "rootcontext"})

# for mount(8), systemd and /etc/fstab, or without a meaning here
_PASSED_OVER = frozenset(
    {
        "rw",  # mount(8) says so unless told otherwise, and the repository is read-only all the same
        "defaults",
        "auto",
        "noauto",
        "user",
        "nouser",
        "users",
        "owner",
        "group",
        "nofail",
        "_netdev",
        "_rnetdev",
        "comment",
        "loop",
        "helper",
        "uhelper",
        "disable_watchdog",  # there is none
        "libfuse",  # neither
        "allow_root",
        "auto_unmount",
        "nonempty",
        "big_writes",
        "blkdev",
        "clone_fd",
        "max_idle_threads",
        "max_threads",
        "kernel_cache",
        "auto_cache",
        "attr_timeout",
        "entry_timeout",
        "negative_timeout",
    }
)
_PASSED_OVER_PREFIXES = ("x-", "X-")
_PARAMETER = re.compile(r"(?:CVMFS_[A-Z0-9_]+|X509_[A-Z_]+|HOST_ALIASES)\Z")
_ESCAPE = re.compile(r"\\(?:([0-3][0-7]{2})|(.))", re.DOTALL)


@dataclass(frozen=True, slots=True)
class OptionWords:
    """The words of all `-o` together; of a word with a value the last one counts."""

    flags: frozenset[str] = frozenset()
    values: dict[str, str] = field(default_factory=dict)
    parameters: dict[str, str] = field(default_factory=dict)
    kernel: tuple[str, ...] = ()


def parse_words(texts: Iterable[str], *, is_sloppy: bool = False) -> OptionWords:
    flags: set[str] = set()
    values: dict[str, str] = {}
    parameters: dict[str, str] = {}
    kernel: dict[str, None] = {}
    for word in (word for text in texts for word in split_words(text)):
        name, equals, value = word.partition("=")
        if equals and _PARAMETER.match(name):
            parameters[name] = value
        elif equals and name in _VALUES:
            values[name] = value
        elif not equals and name in _FLAGS:
            flags.add(name)
        elif (not equals and name in _KERNEL_FLAGS) or (equals and name in _KERNEL_VALUES):
            kernel[word] = None
        elif name in _PASSED_OVER or name.startswith(_PASSED_OVER_PREFIXES) or is_sloppy:
            pass
        else:
            raise UsageError(_complaint(word, name, has_value=bool(equals)))
    return OptionWords(frozenset(flags), values, parameters, tuple(kernel))


def split_words(text: str) -> Iterator[str]:
    """The words between commas; a backslash takes the meaning of the next character, or is a byte in octal."""
    word = ""
    position = 0
    while position < len(text):
        escape = _ESCAPE.match(text, position)
        if escape is not None:
            word += escape[2] if escape[1] is None else chr(int(escape[1], 8))
            position = escape.end()
        elif text[position] == ",":
            if word:
                yield word
            word = ""
            position += 1
        else:
            word += text[position]
            position += 1
    if word:
        yield word


def _complaint(word: str, name: str, *, has_value: bool) -> str:
    if has_value and name in _FLAGS | _KERNEL_FLAGS:
        return f"-o {word}: {name} takes no value"
    if not has_value and (name in _VALUES | _KERNEL_VALUES or _PARAMETER.match(name)):
        return f"-o {word}: {name} needs a value"
    import difflib

    close = difflib.get_close_matches(name, sorted(_FLAGS | _VALUES | _KERNEL_FLAGS | _KERNEL_VALUES), n=1)
    return f"-o {word}: unknown option" + (f"; is {close[0]} meant?" if close else "")
