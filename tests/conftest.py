"""What several test modules share."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real images in their datasets' own layouts, beside the checkout of the developers and of CI."""
    if not (SHARED / "data").is_dir():
        pytest.skip(f"needs the real image subsets in {SHARED / 'data'}")
    return SHARED / "data"
