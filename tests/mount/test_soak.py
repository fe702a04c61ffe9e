"""A short soak of both engines. Longer ones: `./dev soak`."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

import pytest

from tests.mount.mounting import every_engine, why_no_mounts
from tests.mount.soak import Soak

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(bool(why_no_mounts()), reason=why_no_mounts())
SECONDS = 20.0


@every_engine
def test_nothing_wrong_is_shown_and_nothing_is_left_behind(engine: str, tmp_path: Path) -> None:
    seed = 1 if os.environ.get("CI") else random.randrange(1 << 30)
    report = Soak(tmp_path, engine, seed).run(SECONDS)
    assert not report.wrong, f"seed {seed}\n{report}"
    assert report.done > 1000, f"seed {seed}\n{report}"
    assert report.chaos.total() > 10
