"""No deadline for examples; and how tests are spread over workers: what shares a fixture stays together."""

from pathlib import Path

import hypothesis
import pytest

# No test is judged by the clock: on a busy machine a single example takes as long as it takes.
hypothesis.settings.register_profile("flightdeck", deadline=None)
hypothesis.settings.load_profile("flightdeck")
HERE = Path(__file__).parent
LONG = ("integration", "behaviour")  # servers and models: made once per folder, not once per worker


def _folder(item: pytest.Item) -> tuple[str, str]:
    kind, part, *_ = item.path.relative_to(HERE).parts
    return kind, part


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep a long folder's tests in one worker (`--dist loadgroup`), and begin with them."""
    for item in items:
        kind, part = _folder(item)
        if kind in LONG and item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(f"{kind}-{part}"))
    items.sort(key=lambda item: _folder(item)[0] not in LONG)
