"""Built-in knowledge of the public domains: servers and master keys, from `conf/domains.toml`.

Reads that one file, once. Decides nothing about precedence: configured servers and keys come first, elsewhere.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from cvmfs_py.errors import ConfigError

_URL = "http://{host}/cvmfs/@fqrn@"


@dataclass(frozen=True, slots=True)
class KeyText:
    """A master key as text, not looked into, and where it is from."""

    origin: str
    pem: bytes


@dataclass(frozen=True, slots=True)
class Domain:
    """What is known of one domain; the URLs carry the template for the repository."""

    name: str
    servers: tuple[str, ...]
    cdn_servers: tuple[str, ...]
    keys: tuple[KeyText, ...]


@dataclass(frozen=True, slots=True)
class Knowledge:
    """The whole file."""

    config_repository: str
    default_domain: str
    domains: dict[str, Domain]


def built_in_directory() -> Path:
    """The folder `conf`: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    for directory in (package / "conf", package.parent / "conf"):
        if (directory / "domains.toml").is_file():
            return directory
    raise ConfigError(f"the installation is incomplete: {package / 'conf' / 'domains.toml'} is missing")


@cache
def load_knowledge() -> Knowledge:
    return parse_knowledge((built_in_directory() / "domains.toml").read_text("utf-8"))


def parse_knowledge(text: str) -> Knowledge:
    import tomllib  # only where nothing is configured

    try:
        content = tomllib.loads(text)
        return Knowledge(
            str(content["config_repository"]),
            str(content["default_domain"]),
            {name: _parse_domain(name, table) for name, table in content["domain"].items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"the built-in list of domains is damaged ({error}); reinstall the program") from error


def _parse_domain(name: str, table: dict[str, object]) -> Domain:
    hosts, cdn_hosts, keys = table["hosts"], table.get("cdn_hosts", []), table["keys"]
    if not (isinstance(hosts, list) and isinstance(cdn_hosts, list) and isinstance(keys, dict)):
        raise TypeError(f"the entry of {name}")
    return Domain(
        name,
        tuple(_URL.format(host=host) for host in hosts),
        tuple(_URL.format(host=host) for host in cdn_hosts),
        tuple(KeyText(f"built-in key {key_name}", _format_pem(str(text))) for key_name, text in keys.items()),
    )


def _format_pem(base64_text: str) -> bytes:
    try:
        der = base64.b64decode("".join(base64_text.split()), validate=True)
    except binascii.Error as error:
        raise ValueError(f"a key that is not base64: {error}") from error
    text = base64.b64encode(der).decode("ascii")
    body = "\n".join(text[start : start + 64] for start in range(0, len(text), 64))
    return f"-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n".encode("ascii")
