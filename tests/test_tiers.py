"""The tiers that tests/conftest.py assigns by path."""

import pytest

from tests.conftest import INTEGRATION, SLOW
from tests.project import ROOT


@pytest.mark.parametrize("path", [*SLOW, *INTEGRATION])
def test_marked_path_exists(path: str) -> None:
    assert (ROOT / path).exists()
