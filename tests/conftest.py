"""What every test shares: where real market data lies, and that nothing skips in silence."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("TRADINGBOT_TEST_DATA", ROOT.parent / "shared" / "data"))
NO_DATA = "no market data"  # the one reason to skip that also holds in CI

settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.load_profile("tests")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --without: the tests of a feature that is rolled back are left out, and counted."""
    text = "leave out the tests of this feature flag (repeatable); all that is left must pass without it"
    parser.addoption("--without", action="append", default=[], metavar="FLAG", help=text)


def pytest_configure(config: pytest.Config) -> None:
    """Name the marker, and refuse a flag that there is not."""
    from tradingbot.config import FLAGS

    config.addinivalue_line("markers", "feature(name): a test of what a feature flag switches off")
    unknown = set(config.getoption("--without")) - set(FLAGS)
    if unknown:
        raise pytest.UsageError(f"--without {unknown.pop()}: the flags are {', '.join(FLAGS)}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests of the features that are named."""
    without = set(config.getoption("--without"))
    left_out = [item for item in items if without & {name for m in item.iter_markers("feature") for name in m.args}]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Let a skip fail in CI, but for real market data, which the repository cannot hold."""
    outcome = yield
    report = outcome.get_result()
    if report.skipped and os.environ.get("CI") == "true":
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if NO_DATA not in reason:
            report.outcome = "failed"
            report.longrepr = f"{item.nodeid} skipped, and in CI nothing may: {reason}"


@pytest.fixture
def market_data() -> Callable[[str], Path]:
    """Give the path of a real market data file by its name."""

    def find(name: str) -> Path:
        path = DATA / name
        if not path.exists():
            pytest.skip(f"{NO_DATA}: {name} is not in {DATA.name}/ (set TRADINGBOT_TEST_DATA)")
        return path

    return find


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep the environment's settings, and any tradingbot.toml above, out of tests."""
    from tradingbot.config import registry

    for name in registry():
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TRADINGBOT_HOME", str(tmp_path))
