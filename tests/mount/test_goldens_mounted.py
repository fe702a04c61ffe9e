"""The fixture repository through a mount equals what the reference client showed of it, online and offline."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.compat.zoo_goldens import FQRN, GOLDENS, KEY, ROOT_HASHES, Golden, make_document_root
from tests.mount.mounting import Mounted, every_engine, why_no_mounts
from tests.mount.observing import differences, observe
from tests.simulator.command import Client
from tests.simulator.web import PROGRAM as NGINX
from tests.simulator.web import Nginx

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.skipif(bool(why_no_mounts()), reason=why_no_mounts()),
    pytest.mark.skipif(NGINX is None, reason="needs nginx"),
]


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Nginx]:
    with Nginx(make_document_root(tmp_path / "www")) as server:
        yield server


def make_client(directory: Path, web: Nginx) -> Client:
    client = Client(directory, FQRN, [web.url], KEY, EXTERNAL_URL=web.url, CLAIM_OWNERSHIP="no")
    client.environment["ZOO_SET"] = "zoo-value"
    return client


@every_engine
@pytest.mark.parametrize("name", GOLDENS)
def test_everything_is_as_the_reference_client_shows_it(tmp_path: Path, web: Nginx, name: str, engine: str) -> None:
    client = make_client(tmp_path / "client", web)
    golden = Golden(name)
    pin = () if name == "head-r7" else ("--tag", name)
    with Mounted(client, tmp_path / "mnt", *pin, engine=engine) as top:
        cold = observe(top, golden)
    description = cold.records[""]["xattrs"]["user.repo_metainfo"]
    assert description.startswith("{")
    assert differences(cold, golden, description) == []
    web.kill()
    with Mounted(client, tmp_path / "mnt", *pin, engine=engine) as top:
        assert differences(observe(top, golden), golden, description) == []


@every_engine
def test_pins_side_by_side_from_one_cache(tmp_path: Path, web: Nginx, engine: str) -> None:
    client = make_client(tmp_path / "client", web)
    pins = ("--root-hash", ROOT_HASHES["v1"]), ("--tag", "v3-plain")
    with (
        Mounted(client, tmp_path / "one", *pins[0], engine=engine) as first,
        Mounted(client, tmp_path / "two", *pins[1], engine=engine) as second,
    ):
        for top, name in ((first, "v1"), (second, "v3-plain")):
            golden = Golden(name)
            seen = observe(top, golden)
            assert seen.records.keys() == golden.records.keys()
            for path, record in golden.records.items():
                assert seen.records[path].get("sha256") == record.get("sha256"), path
    web.kill()
    asked = [line.split(" ")[2] for line in web.log]
    assert asked.count(f"/cvmfs/{FQRN}/.cvmfspublished") == 1  # for the tag; a root hash vouches for itself
