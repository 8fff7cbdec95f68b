"""Fixtures for every test."""

import os
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope="session")
def shared_data() -> pathlib.Path:
    """Real pages and signatures, which are not part of the project; tests skip where they are absent."""
    folder = pathlib.Path(os.environ.get("SIGNVER_SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real data are not in {folder} (set SIGNVER_SHARED_DATA)")
    return folder
