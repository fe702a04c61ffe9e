"""Which root catalog a repository is opened at: the newest that the servers vouch for, a pinned one, or the last known.

Fetches and verifies; decides nothing about trust (`cvmfs_py.trust` does) and loads no nested catalogs. A root from the
servers is written down only after its catalog is here, so that an offline start never points at what was never loaded.
"""

from __future__ import annotations

import enum
import logging
import math
import time
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import trio

from cache.address import Kind
from cache.ref import ObjectRef
from catalog.errors import CatalogError
from catalog.history import History
from catalog.tree import CatalogTree
from cvmfs_py.errors import FetchError, IntegrityError, NoSnapshotError, ObjectGoneError, TrustError, in_brief, in_full
from cvmfs_py.mount.concurrency import first_error
from cvmfs_py.mount.memory import Memory
from cvmfs_py.trust.root_choice import RootChoice
from cvmfs_py.trust.trusted_state import TrustedState
from cvmfs_py.trust.whitelist import format_time

if TYPE_CHECKING:
    from collections.abc import Callable

    from cache.address import ContentHash
    from cache.store import Store
    from catalog.history import Tag
    from catalog.opened import OpenObject
    from cvmfs_py.config.settings import Settings
    from cvmfs_py.driver import Driver
    from cvmfs_py.errors import CvmfsError
    from cvmfs_py.mount.memory import Known
    from cvmfs_py.network.fetcher import Answer, Fetcher
    from cvmfs_py.trust.blacklist import Blacklist
    from cvmfs_py.trust.breadcrumb import Breadcrumb
    from cvmfs_py.trust.keys import MasterKey
    from cvmfs_py.trust.trusted_state import TrustedRoot

_log = logging.getLogger(__name__)
T = TypeVar("T")
DOCUMENT_LIMIT_BYTES = 1 << 20
DOCUMENTS = 2  # manifest and whitelist
NEWS_LIMIT_S = 30.0  # the most that silent servers can delay the start of what works without them
NEWS_AGAIN_S = 2.0  # the same, when they were silent a moment ago
ROOT_CATALOG_LIMIT_BYTES = 4 << 30
ATTACHED_CATALOGS = 16  # a walk needs those on its way, and each keeps up to 1 MiB of pages in memory


class RootOrigin(enum.Enum):
    """Where a root comes from."""

    SERVER = "newest revision, from the server"
    OFFLINE = "last known revision, no server vouches for a newer one"
    ROOT_HASH = "pinned by root hash"
    TAG = "pinned by tag"
    DATE = "pinned by date"


@dataclass(frozen=True, slots=True)
class Root:
    """A root catalog that may be used, and why."""

    tree: CatalogTree
    origin: RootOrigin
    trusted: TrustedRoot | None = None  # None: vouched for by its own hash, or by a preloaded cache
    answer: Answer | None = None  # the manifest as it came; None: nobody was asked or nobody answered
    tag: Tag | None = None
    why_offline: str = ""  # in few words

    @property
    def content_hash(self) -> ContentHash:
        return self.tree.root_ref.content_hash


@dataclass(frozen=True, slots=True)
class RootFinder:
    """Finds the root of one repository with what is given: settings, a store, servers and keys."""

    settings: Settings
    store: Store
    fetcher: Fetcher
    driver: Driver
    master_keys: tuple[MasterKey, ...]
    blacklist: Blacklist
    warnings: list[str]  # grows: what the user should know although it works
    attached_limit: int = ATTACHED_CATALOGS

    @property
    def _memory(self) -> Memory:
        return Memory(self.settings.fqrn, self.store, self.master_keys, self.blacklist, self.warnings)

    async def find(self) -> Root:
        """The root that the settings ask for; its catalog is local afterwards."""
        settings = self.settings
        if settings.root_hash:
            return await self._by_root_hash(settings.root_hash)
        if settings.repository_tag:
            return await self._by_tag(name=settings.repository_tag)
        if settings.repository_date_s is not None:
            return await self._by_tag(timestamp_s=settings.repository_date_s)
        return await self._newest()

    async def vouched(self) -> tuple[TrustedRoot, Answer | None]:
        """The newest verified manifest and who sent it; without servers the last one known. Loads no catalog."""
        known = self._memory.last_vouched()
        # Tags of an older manifest are as good as those of a newer one, so nothing is too old here.
        state = TrustedState(self.settings.fqrn, self.master_keys, self.blacklist)
        try:
            return await self._ask_servers(state, self._deadline(known is not None))
        except (FetchError, TrustError) as error:
            if known is None:
                raise
            self._warn_offline(known.breadcrumb, error)
            return known, None

    async def tags(self) -> tuple[Tag, ...]:
        trusted, _ = await self.vouched()
        return await self._ask_history(trusted, History.tags) or ()

    # pinned roots

    async def _by_root_hash(self, content_hash: ContentHash) -> Root:
        try:
            tree = await self._load(self._root_ref(content_hash, "pinned", self.settings.alt_root_path))
        except ObjectGoneError as error:
            raise ObjectGoneError(
                f"no server of {self.settings.fqrn} has a root catalog {content_hash}: it is misspelt, of another"
                " repository, or has been removed",
                error.attempts,
            ) from error
        return Root(tree, RootOrigin.ROOT_HASH)

    async def _by_tag(self, *, name: str = "", timestamp_s: int | None = None) -> Root:
        fqrn = self.settings.fqrn
        trusted, answer = await self.vouched()
        if trusted.manifest.history_ref is None:
            raise NoSnapshotError(f"{fqrn} has no tags: it can be pinned by its root hash only")

        def search(history: History) -> Tag | None:
            return history.by_name(name) if timestamp_s is None else history.by_date(timestamp_s)

        tag = await self._ask_history(trusted, search)
        if tag is None:
            what = f"tag {name!r}" if timestamp_s is None else f"tagged snapshot as early as {format_time(timestamp_s)}"
            raise NoSnapshotError(f"{fqrn} has no {what}; `cvmfs-py tags {fqrn}` lists what it has")
        try:
            tree = await self._load(tag.root_ref)
        except ObjectGoneError as error:
            raise ObjectGoneError(
                f"{fqrn} has the tag {tag.name!r} still, but no server has its root catalog {tag.root_hash} any more:"
                " it was garbage-collected; pin another one",
                error.attempts,
            ) from error
        return Root(tree, RootOrigin.TAG if timestamp_s is None else RootOrigin.DATE, trusted, answer, tag)

    async def _ask_history(self, trusted: TrustedRoot, question: Callable[[History], T]) -> T | None:
        """What the tags of a manifest answer, and from now on can answer without a network; None: it has no tags."""
        history_ref = trusted.manifest.history_ref
        if history_ref is None:
            return None

        def read(open_object: OpenObject) -> T:
            with History.open(open_object(history_ref), history_ref.content_hash) as history:
                history.check_fqrn(self.settings.fqrn)
                return question(history)

        answer = await self.driver.run(read)
        self._memory.keep_tags(trusted)
        return answer

    # the newest root

    async def _newest(self) -> Root:
        known = self._memory.known()
        state = TrustedState(self.settings.fqrn, self.master_keys, self.blacklist, known.minimum)
        try:
            is_here = known.usable is not None and self.store.has(self._root_ref(known.usable.root_hash, "last known"))
            offered, answer = await self._ask_servers(state, self._deadline(is_here))
            tree = await self._load_offered(offered, known)
        except (FetchError, TrustError, IntegrityError, CatalogError) as error:
            return await self._offline(known, error)
        adopted = state.adopt(offered)
        if tree.root_ref.content_hash != offered.manifest.root_hash:
            return Root(tree, RootOrigin.SERVER, known.trusted, answer)
        is_adopted = adopted.root_hash == offered.manifest.root_hash
        self._memory.keep_root(adopted if is_adopted else offered.breadcrumb, offered)
        return Root(tree, RootOrigin.SERVER, offered, answer)

    async def _load_offered(self, offered: TrustedRoot, known: Known) -> CatalogTree:
        """The root that a server offers; of two with the same revision the one that is here stays, as long as it is."""
        if offered.choice is RootChoice.LOCAL and known.usable is not None:
            try:
                return await self._load(self._root_ref(known.usable.root_hash, "last known"))
            except (FetchError, IntegrityError, CatalogError) as error:
                if known.usable.root_hash == offered.manifest.root_hash:
                    raise
                _log.info("the last known root cannot be used: %s", error)
        return await self._load(offered.manifest.root_ref)

    async def _offline(self, known: Known, error: CvmfsError | CatalogError) -> Root:
        """The last known root, if there is one and its catalog is here; else the error stands."""
        if known.usable is None:
            raise error
        try:
            tree = await self._load(self._root_ref(known.usable.root_hash, "last known"))
        except (FetchError, IntegrityError, CatalogError) as second:
            _log.debug("the last known root cannot be used: %s", second)
            raise error from second
        self._warn_offline(known.usable, error)
        return Root(tree, RootOrigin.OFFLINE, known.trusted, why_offline=in_brief(error))

    def _deadline(self, has_other: bool) -> float:
        """Until when servers may answer. Nobody waits long for news who has a root to go on with."""
        if not has_other:
            return math.inf
        limit_s = min(max(self.settings.timeout_s, self.settings.timeout_direct_s) or NEWS_LIMIT_S, NEWS_LIMIT_S)
        if self._memory.is_unanswered(time.time()):
            limit_s = min(limit_s, NEWS_AGAIN_S)
        return trio.current_time() + limit_s

    async def _ask_servers(self, state: TrustedState, deadline: float) -> tuple[TrustedRoot, Answer]:
        """A verified manifest; a server whose documents are refused makes room for the next one, once each.

        The only server is asked again past its proxies, which may hold old documents.
        """
        refused: TrustError | FetchError | None = None
        is_mixed = False
        blamed = 0
        while blamed < max(2, self.fetcher.host_count):
            answers: dict[str, Answer] = {}
            try:
                found = await self._ask_server(state, deadline, answers, no_cache=refused is not None)
            except (TrustError, FetchError) as error:
                if isinstance(error, FetchError) and len(answers) < DOCUMENTS:
                    if refused is None:
                        self._memory.keep_unanswered(time.time())
                        raise
                    break  # all servers were asked, in vain
                _log.info("%s", error)
                refused = refused or error
                hosts = {answer.host for answer in answers.values()}
                if len(hosts) > 1 and not is_mixed:
                    is_mixed = True  # the first server was left in between: once more, both from the one in use now
                    continue
                blamed += 1
                if self.fetcher.host_count <= 1 and all(each.proxy == "DIRECT" for each in answers.values()):
                    break
                self.fetcher.switch_host(str(error), hosts.pop() if len(hosts) == 1 else None)
            else:
                self._memory.keep_answered()
                return found
        assert refused is not None
        try:
            raise refused
        finally:
            del refused  # its traceback has this frame

    async def _ask_server(
        self, state: TrustedState, deadline: float, answers: dict[str, Answer], *, no_cache: bool
    ) -> tuple[TrustedRoot, Answer]:
        """Fetches the documents and what they need; `answers` tells the caller who sent them."""

        async def fetch(path: str) -> None:
            try:
                answers[path] = await self.fetcher.fetch_file(
                    path, DOCUMENT_LIMIT_BYTES, no_cache=no_cache, deadline=deadline
                )
            except ObjectGoneError as error:
                message = f"no server has {path} of {self.settings.fqrn}: is its name right?"
                raise ObjectGoneError(message, error.attempts) from error
            except FetchError as error:
                message = f"cannot fetch {path} of {self.settings.fqrn}: check the network, the servers and the proxies"
                raise FetchError(message, error.attempts) from error

        with first_error():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fetch, ".cvmfspublished")
                nursery.start_soon(fetch, ".cvmfswhitelist")
        manifest = answers[".cvmfspublished"]
        certificate_ref = state.certificate_ref(manifest.data)
        certificate_pem = await self.driver.run(lambda open_object: _read(open_object, certificate_ref))
        whitelist = answers[".cvmfswhitelist"]
        return state.accept(manifest.data, certificate_pem, whitelist.data, time.time()), manifest

    # small parts

    def _root_ref(self, content_hash: ContentHash, which: str, alternative_path: bool = False) -> ObjectRef:
        return ObjectRef(
            content_hash,
            Kind.CATALOG,
            limit_bytes=ROOT_CATALOG_LIMIT_BYTES,
            alternative_path=alternative_path,
            label=f"root catalog of {self.settings.fqrn} ({which})",
        )

    async def _load(self, ref: ObjectRef) -> CatalogTree:
        """A tree whose root catalog is attached, and not of a blacklisted revision."""
        tree = CatalogTree(ref, attached_limit=self.attached_limit)
        properties = await self.driver.run(tree.root_properties)
        refusal = self.blacklist.refuses_revision(self.settings.fqrn, properties.revision)
        if refusal is not None:
            tree.close()
            raise refusal
        return tree

    def _warn_offline(self, breadcrumb: Breadcrumb, error: Exception) -> None:
        _log.info("no server offers a better revision: %s", in_full(error))
        self.warnings.append(
            f"using revision {breadcrumb.revision} of {self.settings.fqrn}, published on"
            f" {format_time(breadcrumb.timestamp_s)}, from the cache, because no server offers a better one: {error}"
        )


def _read(open_object: OpenObject, ref: ObjectRef) -> bytes:
    with closing(open_object(ref)) as local:
        return local.read()
