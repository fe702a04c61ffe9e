"""`cvmfs-py info`: what a repository is, who vouches for it, where it comes from and how much is in it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from cvmfs_py.cli import options as common
from cvmfs_py.cli.output import counted, date_text, size_text, write_json, write_line
from cvmfs_py.cli.session import run_each, warn
from cvmfs_py.config.target import parse_target
from cvmfs_py.errors import FetchError, IntegrityError, UsageError

if TYPE_CHECKING:
    import argparse

    from catalog.opened import OpenObject
    from catalog.statistics import Counters
    from cvmfs_py.mount.repository import Repository
    from cvmfs_py.trust.trusted_state import TrustedRoot


def build_parser(prog: str) -> argparse.ArgumentParser:
    parser = common.new_parser(
        prog,
        "Show revision, dates, signature chain, server and contents of a repository.",
        "cvmfs-py info sft.cern.ch",
    )
    parser.add_argument("repositories", metavar="REPO", nargs="+", help="FQRN or URL")
    parser.add_argument("--json", action="store_true", help="as JSON")
    common.add_repository_options(parser)
    return parser


def run(options: argparse.Namespace) -> int:
    for text in options.repositories:
        if parse_target(text).path:
            raise UsageError(f"{text}: this is about the whole repository; leave out the path")
    return run_each(options, options.repositories, show_info)


async def show_info(repository: Repository, path: bytes, options: argparse.Namespace) -> None:
    del path
    information = await gather(repository)
    if options.json:
        write_json(information)
        return
    for line in _lines(information):
        write_line(line.encode("utf-8", "replace"))


async def gather(repository: Repository) -> dict[str, Any]:
    """Everything to show, as a value for JSON."""
    root = repository.root
    trusted = root.trusted

    def read(open_object: OpenObject) -> tuple[Counters, int, int, int]:
        properties = repository.tree.root_properties(open_object)
        counters = repository.tree.catalog_for(b"", open_object).counters()
        return counters, properties.revision, properties.ttl_s, properties.last_modified_s

    counters, revision, ttl_s, last_modified_s = await repository.run(read)
    return {
        "fqrn": repository.fqrn,
        "revision": revision,
        "root_hash": str(root.content_hash),
        "origin": root.origin.value,
        "tag": None if root.tag is None else root.tag.name,
        "published": date_text(last_modified_s),
        "ttl_s": ttl_s,
        "server": None if root.answer is None else root.answer.host,
        "servers": list(repository.settings.servers),
        "proxy": None if root.answer is None else root.answer.proxy,
        "counters": counters.total,
        "signatures": None if trusted is None else _signatures(trusted),
        "metainfo": await _metainfo(repository),
        "cache": str(repository.settings.cache_dir),
    }


def _signatures(trusted: TrustedRoot) -> dict[str, Any]:
    facts = trusted.certificate.describe()
    whitelist = trusted.whitelist
    return {
        "manifest": {
            "revision": trusted.manifest.revision,
            "root_hash": str(trusted.manifest.root_hash),
            "published": date_text(trusted.manifest.timestamp_s),
            "garbage_collectable": trusted.manifest.is_garbage_collectable,
            "history": None if trusted.manifest.history_hash is None else str(trusted.manifest.history_hash),
        },
        "certificate": {
            "fingerprint": _fingerprint(trusted.certificate.fingerprint()),
            "subject": facts.subject,
            "valid_from": date_text(facts.valid_from_s),
            "valid_until": date_text(facts.valid_until_s),
        },
        "whitelist": {
            "expires": date_text(whitelist.expires_s),
            "fingerprints": [_fingerprint(each) for each in whitelist.fingerprints],
        },
        "master_key": {
            "fingerprint": _fingerprint(whitelist.master_key.fingerprint),
            "source": whitelist.master_key.source,
        },
    }


async def _metainfo(repository: Repository) -> Any:
    """The description that the owner published, if there is one; as text if it is no JSON."""
    trusted = repository.root.trusted
    ref = None if trusted is None else trusted.manifest.metainfo_ref
    if ref is None:
        return None
    try:
        (pin,) = await repository.pin((ref,))
    except (FetchError, IntegrityError) as error:
        warn([f"the description of {repository.fqrn} is left out: {error}"])  # it describes, nothing depends on it
        return None
    with pin:
        text = pin.read().decode("utf-8", "replace")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _lines(information: dict[str, Any]) -> list[str]:
    counters = information["counters"]
    lines = [
        f"repository    {information['fqrn']}",
        f"revision      {information['revision']}" + (f" (tag {information['tag']})" if information["tag"] else ""),
        f"origin        {information['origin']}",
        f"root hash     {information['root_hash']}",
        f"published     {information['published']}, to be looked at again after {information['ttl_s']} s",
        f"server        {information['server'] or 'not asked, or not answering'}"
        f" ({counted(len(information['servers']), 'server')} configured)",
        f"proxy         {information['proxy'] or 'none used'}",
        f"contents      {counted(counters['regular'], 'file')} with {size_text(counters['file_size'])},"
        f" {counted(counters['dir'], 'directory', 'directories')}, {counted(counters['symlink'], 'link')},"
        f" {counted(counters['special'], 'special file')}",
        f"              {counted(counters['nested'], 'nested catalog')},"
        f" {counted(counters['chunked'], 'chunked file')} in {counted(counters['chunks'], 'chunk')},"
        f" {counted(counters['external'], 'external file')}",
    ]
    signatures = information["signatures"]
    if signatures is None:
        lines.append(f"signatures    none: the root is {information['origin']}, and everything is verified against it")
    else:
        lines += [
            f"manifest      revision {signatures['manifest']['revision']} of {signatures['manifest']['published']},"
            " signature valid",
            f"certificate   {signatures['certificate']['fingerprint']}",
            f"              {signatures['certificate']['subject']}, until {signatures['certificate']['valid_until']}",
            f"whitelist     lists it, expires {signatures['whitelist']['expires']}",
            f"master key    {signatures['master_key']['fingerprint']}",
            f"              from {signatures['master_key']['source']}",
        ]
    if information["metainfo"] is not None:
        told = information["metainfo"]
        texts = [f"{key}: {_told(value)}" for key, value in told.items()] if isinstance(told, dict) else [_told(told)]
        lines += [f"{'' if number else 'metainfo':<13} {text}" for number, text in enumerate(texts)]
    lines.append(f"cache         {information['cache']}")
    return lines


def _told(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _fingerprint(fingerprint: Any) -> str:
    from cvmfs_py.trust.whitelist import format_fingerprint

    return format_fingerprint(fingerprint)
