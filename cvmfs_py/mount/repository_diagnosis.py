"""The checks of one repository: does its name resolve, are its keys there, do servers answer, is the clock right.

Fetches into memory, so that what the cache holds hides no dead network. Runs in an event loop; each check ends after
the time limits of the configuration.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cache.errors import CacheError
from catalog.errors import CatalogError
from cvmfs_py.config.check import check_settings
from cvmfs_py.errors import ConfigError, CvmfsError, FetchError, Refusal, TrustError
from cvmfs_py.mount import wiring
from cvmfs_py.mount.assemble import load_wanted_settings, open_finder
from cvmfs_py.mount.diagnosis import Check, Outcome
from cvmfs_py.mount.roots import RootOrigin
from cvmfs_py.network.server_time import fetch_server_time
from cvmfs_py.numerals import counted
from cvmfs_py.trust.whitelist import format_time

if TYPE_CHECKING:
    from cvmfs_py.config.settings import Settings
    from cvmfs_py.mount.assemble import Wanted
    from cvmfs_py.mount.roots import RootFinder
    from cvmfs_py.network.fetcher import Answer
    from cvmfs_py.network.server_time import ServerTime
    from cvmfs_py.trust.trusted_state import TrustedRoot

CLOCK_LIMIT_S = 10.0
CLOCK_OK_S = 60.0
EXPIRES_SOON_S = 3 * 86400


async def check_repository(wanted: Wanted) -> tuple[list[Check], Settings | None]:
    """The checks, and the settings for those of the cache; without a name, what can be checked without one."""
    try:
        settings, warnings = await load_wanted_settings(wanted, tell_all=True)
    except ConfigError as error:
        return [Check("configuration", Outcome.FAILED, str(error), "cvmfs-py config check tells more")], None
    checks = [_check_configuration(settings, warnings)]
    if not settings.fqrn:
        nothing = "name a repository to have this checked"
        return [*checks, *(Check(name, Outcome.NOT_NEEDED, nothing) for name in _NEEDS_NAME)], settings
    keys = _check_keys(settings)
    checks.append(keys)
    if keys.outcome is Outcome.FAILED:
        nothing = "not asked without keys"
        return [*checks, *(Check(name, Outcome.NOT_NEEDED, nothing) for name in _NEEDS_NAME[1:])], settings
    return [*checks, *await _check_servers(settings)], settings


_NEEDS_NAME = ("keys", "network", "signatures", "clock")


def _check_configuration(settings: Settings, warnings: list[str]) -> Check:
    findings = [finding for finding in check_settings(settings, warnings) if not finding.is_note]
    errors = [finding.message for finding in findings if finding.is_error]
    if errors:
        return Check("configuration", Outcome.FAILED, "; ".join(errors), _config_command(settings))
    where = (
        f"{counted(len(settings.servers), 'server')}, proxy {settings.http_proxy or 'none'}"
        if settings.fqrn
        else "can be read"
    )
    found = f"{settings.fqrn}: {where}" if settings.fqrn else where
    if findings:
        told = "; ".join(finding.message for finding in findings)
        return Check("configuration", Outcome.WARNING, f"{found}; {told}", _config_command(settings))
    return Check("configuration", Outcome.OK, found)


def _config_command(settings: Settings) -> str:
    return f"cvmfs-py config show --trace {settings.fqrn}".rstrip()


def _check_keys(settings: Settings) -> Check:
    try:
        keys = wiring.load_keys(settings)
    except ConfigError as error:
        if settings.root_hash:
            return Check("keys", Outcome.NOT_NEEDED, f"the root hash vouches for itself ({error})")
        cure = "get the keys from the repository's owner and name them with --key or CVMFS_PUBLIC_KEY"
        return Check("keys", Outcome.FAILED, str(error), cure)
    return Check("keys", Outcome.OK, f"{counted(len(keys), 'master key')}, the first from {keys[0].source}")


async def _check_servers(settings: Settings) -> list[Check]:
    warnings: list[str] = []
    async with open_finder(settings, warnings, fresh=True) as finder:
        started_s = time.monotonic()
        try:
            trusted, answer = await _ask(finder)
        except FetchError as error:
            offline = await _check_offline(settings, error)
            missing = "no server has answered"
            return [offline, *(Check(name, Outcome.NOT_NEEDED, missing) for name in ("signatures", "clock"))]
        except TrustError as error:
            clock = await _check_clock(finder, error)
            return [
                Check("network", Outcome.OK, "servers answer"),
                Check("signatures", Outcome.FAILED, str(error), _cure_signatures(error, clock)),
                clock,
            ]
        except (CvmfsError, CatalogError) as error:
            return [Check("network", Outcome.FAILED, str(error), f"cvmfs-py info --debug {settings.fqrn}")]
        took_s = time.monotonic() - started_s
        return [
            _describe_network(answer, took_s, warnings),
            _describe_signatures(trusted, time.time()),
            await _check_clock(finder, None),
        ]


async def _ask(finder: RootFinder) -> tuple[TrustedRoot | None, Answer | None]:
    settings = finder.settings
    if settings.root_hash or settings.repository_tag or settings.repository_date_s is not None:
        root = await finder.find()
        root.tree.close()  # only how it was found is looked at
        return root.trusted, root.answer
    return await finder.vouched()


def _describe_network(answer: Answer | None, took_s: float, warnings: list[str]) -> Check:
    where = "the pinned root catalog was fetched"
    if answer is not None:
        where = f"{answer.host} answers" + ("" if answer.proxy == "DIRECT" else f" through {answer.proxy}")
    found = f"{where} ({took_s:.1f} s)"
    if warnings:
        return Check("network", Outcome.WARNING, f"{found}; {'; '.join(warnings)}")
    return Check("network", Outcome.OK, found)


def _describe_signatures(trusted: TrustedRoot | None, now_s: float) -> Check:
    if trusted is None:
        return Check("signatures", Outcome.NOT_NEEDED, "the root hash vouches for itself")
    expires_s = trusted.whitelist.expires_s
    found = f"revision {trusted.manifest.revision} is signed; the whitelist is valid until {format_time(expires_s)}"
    if expires_s - now_s < EXPIRES_SOON_S:
        return Check("signatures", Outcome.WARNING, found, "tell the repository's owner to sign a new whitelist")
    return Check("signatures", Outcome.OK, found)


def _cure_signatures(error: TrustError, clock: Check) -> str:
    if error.reason is Refusal.WHITELIST_EXPIRED and clock.outcome is Outcome.FAILED:
        return "set the clock"
    if error.reason is Refusal.FOREIGN_KEY:
        return "get the right keys from the repository's owner (--key, CVMFS_PUBLIC_KEY)"
    return "tell the repository's owner or the server's administrator"


async def _check_offline(settings: Settings, error: FetchError) -> Check:
    """Without a network, what is in the cache may be enough."""
    cure = "check the network, CVMFS_HTTP_PROXY and CVMFS_SERVER_URL"
    if not settings.cache_dir.is_dir():
        return Check("network", Outcome.FAILED, str(error), cure)
    try:
        async with open_finder(settings, []) as finder:
            root = await finder.find()
    except (CvmfsError, CacheError, CatalogError):
        return Check("network", Outcome.FAILED, str(error), cure)
    if root.origin is RootOrigin.SERVER:
        return Check("network", Outcome.WARNING, f"servers answered at the second try only: {error}", cure)
    return Check("network", Outcome.WARNING, f"{error}; what is in the cache can be used", cure)


async def _check_clock(finder: RootFinder, refused: TrustError | None) -> Check:
    try:
        compared = await fetch_server_time(finder.fetcher.standard, CLOCK_LIMIT_S)
    except FetchError:
        compared = None
    return judge_clock(compared, is_expired=refused is not None and refused.reason is Refusal.WHITELIST_EXPIRED)


def judge_clock(compared: ServerTime | None, *, is_expired: bool) -> Check:
    if compared is None:
        return Check("clock", Outcome.NOT_NEEDED, "the server does not say what time it is")
    off_s = abs(compared.ahead_s)
    if off_s <= CLOCK_OK_S:
        return Check("clock", Outcome.OK, f"agrees with {compared.host} to {max(1, round(off_s))} s")
    direction = "ahead of" if compared.ahead_s > 0 else "behind"
    found = f"{duration_text(off_s)} {direction} the one of {compared.host}"
    cure = "as root: set the clock, for example with chronyc makestep or timedatectl set-ntp true"
    return Check("clock", Outcome.FAILED if is_expired else Outcome.WARNING, found, cure)


def duration_text(duration_s: float) -> str:
    for unit_s, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if duration_s >= 2 * unit_s:
            return f"{duration_s / unit_s:.0f} {unit}"
    return counted(round(duration_s), "second")
