"""The grammar of proxy lists: groups separated by `;`, members of a group by `|`.

Pure: resolves no names. `auto` is left in place as a member; `pac.expand_auto` replaces it before parsing.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, replace

_AUTHORITY = re.compile(
    r"(?:(?P<user>[^@/]*)@)?(?P<host>\[[0-9A-Fa-f:.]+\]|[^:/?#\[\]@\s]+)(?::(?P<port>[0-9]{1,5}))?\Z"
)
DEFAULT_PORT = 1080  # what the field's tools assume for a proxy without a port


@dataclass(frozen=True, slots=True)
class Proxy:
    """One member of a proxy group. `name` is for people; `address` is what to connect to, None if that is not known."""

    name: str
    host: str = ""
    port: int = 0
    address: str | None = None
    scheme: str = "http"
    authorization: str = ""

    @property
    def is_direct(self) -> bool:
        return self.name == "DIRECT"

    @property
    def url(self) -> str:
        """The member with its address in place of the name: its identity within a group."""
        if self.address is None:
            return self.name
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{self.scheme}://{host}:{self.port}"

    def at(self, address: str | None) -> Proxy:
        """The same member at an address."""
        return replace(self, address=address)


DIRECT = Proxy("DIRECT")


@dataclass(frozen=True, slots=True)
class ProxyPlan:
    """All groups in order; those from `fallback_start` on are fallback groups."""

    groups: tuple[tuple[Proxy, ...], ...]
    fallback_start: int
    warnings: tuple[str, ...] = ()


def split_groups(text: str) -> list[list[str]]:
    """The members as written, without blanks and empty members or groups."""
    groups = [[member.strip() for member in group.split("|") if member.strip()] for group in text.split(";")]
    return [group for group in groups if group]


def parse_member(text: str) -> Proxy:
    """One member. Nonsense is tolerated: it becomes a member that cannot be resolved."""
    if text == "DIRECT":
        return DIRECT
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "http", text
    authority = rest.split("/", 1)[0]  # a path part means nothing for a proxy
    match = _AUTHORITY.match(authority)
    port = int(match["port"] or DEFAULT_PORT) if match else 0
    if not match or not 0 < port < 65536 or scheme.lower() not in ("http", "https"):
        return Proxy(text)
    authorization = ""
    if match["user"]:
        authorization = "Basic " + base64.b64encode(match["user"].encode("utf-8", "surrogateescape")).decode()
    host = match["host"].strip("[]")
    shown = f"{scheme.lower()}://{match['host']}:{port}"  # never with the password
    return Proxy(shown, host, port, None, scheme.lower(), authorization)


def plan_proxies(regular: str, fallback: str) -> ProxyPlan:
    """Regular and fallback groups in one list, with the rules about DIRECT beside fallback proxies."""
    warnings = []
    groups = [tuple(parse_member(member) for member in group) for group in split_groups(regular)]
    fallback_groups = [tuple(parse_member(member) for member in group) for group in split_groups(fallback)]
    kept = _without_direct(fallback_groups)
    if kept != fallback_groups:
        warnings.append("fallback proxies do not support DIRECT, removing it")
    if kept:
        trimmed = _without_direct(groups)
        if trimmed != groups:
            warnings.append("skipping DIRECT proxy to use fallback proxy")
        groups = trimmed
    fallback_start = len(groups)
    groups += kept
    if not groups:
        groups, fallback_start = [(DIRECT,)], 1
    return ProxyPlan(tuple(groups), fallback_start, tuple(warnings))


def _without_direct(groups: list[tuple[Proxy, ...]]) -> list[tuple[Proxy, ...]]:
    trimmed = [tuple(proxy for proxy in group if not proxy.is_direct) for group in groups]
    return [group for group in trimmed if group]
