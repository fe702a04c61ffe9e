"""`cvmfs-py config add`: makes a private repository known by its name: servers, keys, proxies, checked and written."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING

from cvmfs_py.cli import options as common
from cvmfs_py.cli.config_edit import configuration_directory
from cvmfs_py.errors import ConfigError, FetchError, UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from cvmfs_py.cli.options import Request

_KEY_LIMIT_BYTES = 64 << 10
_WRITTEN = ("CVMFS_SERVER_URL", "CVMFS_PUBLIC_KEY", "CVMFS_KEYS_DIR", "CVMFS_HTTP_PROXY")


def add_repository(options: argparse.Namespace, repository: str) -> int:
    """Writes the file of one repository, with copies of its keys beside it."""
    from cvmfs_py.cli.session import warn
    from cvmfs_py.config.fqrn import complete_fqrn
    from cvmfs_py.config.user_file import store_text
    from cvmfs_py.config.value_check import check_assignment

    request = common.request_of(options, repository)
    if request.target.path or request.target.tag:
        raise UsageError(f"{repository}: a configuration is of a whole repository; leave out what follows its name")
    fqrn = complete_fqrn(request.target.name, None)
    if "CVMFS_SERVER_URL" not in request.overrides:
        raise UsageError(f"where is {fqrn}? Give --server URL, for example --server http://stratum1.example.org")
    if not options.key and options.keys_dir is None:
        raise UsageError(f"who may sign {fqrn}? Give --key FILE, its master public key, which its owner has")
    named = [text.partition("=")[0] for text in options.parameters or ()]
    values = {name: request.overrides[name] for name in dict.fromkeys((*_WRITTEN, *named)) if name in request.overrides}
    warnings = [text for name, value in values.items() for text in check_assignment(name, value)]
    path = configuration_directory(options) / f"{fqrn}.conf"
    if path.exists() and not options.force:
        raise ConfigError(
            f"{fqrn} is configured already, in {path}: --force replaces that file, `cvmfs-py config set` changes it"
        )
    keys = _read_keys(options.key or ())
    revisions = [] if options.no_check else _check_servers(request)
    copies = [path.with_name(f"{fqrn}{f'.{number}' if number > 1 else ''}.pub") for number in range(1, len(keys) + 1)]
    if copies:
        values["CVMFS_PUBLIC_KEY"] = ":".join(map(str, copies))
    text = _format(fqrn, values)  # before anything is written
    for copy, content in zip(copies, keys, strict=True):
        store_text(copy, os.fsdecode(content))
    store_text(path, text)
    warn(warnings)
    for url, revision in revisions:
        print(f"{url} has revision {revision}, and its signatures are right")
    also = "a copy of the key" if len(copies) == 1 else f"copies of {len(copies)} keys"
    print(f"wrote {path}" + (f", and {also} beside it" if copies else ""))
    print(f"use it by its name: cvmfs-py ls {fqrn}")
    return 0


def _read_keys(files: Sequence[str]) -> list[bytes]:
    from cvmfs_py.config.files import read_small_file
    from cvmfs_py.trust.keys import parse_master_key

    contents = []
    for file in files:
        try:
            content = read_small_file(Path(file), _KEY_LIMIT_BYTES)
        except FileNotFoundError as error:
            raise ConfigError(f"the master key {file} does not exist") from error
        parse_master_key(content, file)
        contents.append(content)
    return contents


def _format(fqrn: str, values: Mapping[str, str]) -> str:
    from cvmfs_py.config.user_file import format_assignment

    lines = [format_assignment(name, value) for name, value in values.items()]
    return "\n".join((f"# {fqrn}, written by `cvmfs-py config add`", *lines, ""))


def _check_servers(request: Request) -> list[tuple[str, int]]:
    """Asks every server; what one of them has must be signed by the keys. Its URL and revision."""
    from cvmfs_py.cli.session import run_async, wanted
    from cvmfs_py.mount.assemble import load_wanted_settings, open_finder

    async def ask() -> list[tuple[str, int]]:
        settings, warnings = await load_wanted_settings(wanted(request))
        found = []
        for server in settings.servers:
            alone = dataclasses.replace(settings, servers=(server,), root_hash=None)
            # In memory: what is remembered of earlier visits must not vouch for a server.
            async with open_finder(alone, warnings, fresh=True) as finder:
                try:
                    trusted, _ = await finder.vouched()
                except FetchError as error:
                    raise FetchError(f"{error}; nothing was written, --no-check does it all the same") from error
                found.append((server, trusted.manifest.revision))
        return found

    return run_async(ask)
