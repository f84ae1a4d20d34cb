"""The layers of settings: the later wins, GLOBAL_TRADING apart, and each value names its source."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradingbot.errors import SettingsError, UsageError
from tradingbot.io.home import Home, find_home
from tradingbot.io.overrides import read_settings


def home_with(tmp_path: Path, toml: str = "", overrides: object = None) -> Home:
    (tmp_path / "tradingbot.toml").write_text(toml)
    if overrides is not None:
        (tmp_path / "state").mkdir(exist_ok=True)
        (tmp_path / "state" / "overrides.json").write_bytes(orjson.dumps({"v": 1, "overrides": overrides}))
    return Home(tmp_path, "test")


def test_each_layer_wins_over_the_one_before(tmp_path: Path) -> None:
    """Defaults, file, environment, --set, overrides: in that order."""
    home = home_with(
        tmp_path, "POLL_S = 3\nDEBOUNCE_S = 4\nTOP_N = 5\nCONFIRM_TICKS = 1", {"CONFIRM_TICKS": {"value": 4}}
    )
    effective = read_settings(
        home,
        environ={"DEBOUNCE_S": "6", "TOP_N": "7", "CONFIRM_TICKS": "2"},
        assignments=["TOP_N=9", "CONFIRM_TICKS=3"],
    )
    s = effective.settings
    assert (s.POLL_S, s.DEBOUNCE_S, s.TOP_N, s.CONFIRM_TICKS) == (3, 6, 9, 4)
    assert [effective.sources[n] for n in ("HEARTBEAT_S", "POLL_S", "DEBOUNCE_S", "TOP_N", "CONFIRM_TICKS")] == [
        "default", "tradingbot.toml", "environment", "--set", "overrides.json",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("toml", "environ", "assignments", "overrides", "on"),
    [
        ("", {}, [], None, False),
        ("GLOBAL_TRADING = true", {}, [], None, True),
        ("GLOBAL_TRADING = true", {"GLOBAL_TRADING": "off"}, [], None, False),
        ("GLOBAL_TRADING = false", {}, ["GLOBAL_TRADING=true"], None, False),
        ("", {}, ["GLOBAL_TRADING=true"], {"GLOBAL_TRADING": {"value": False}}, False),
        ("", {"GLOBAL_TRADING": "1"}, [], {"GLOBAL_TRADING": {"value": True}}, True),
    ],
)
def test_trading_is_on_only_if_one_says_on_and_none_says_off(
    tmp_path: Path, toml: str, environ: dict[str, str], assignments: list[str], overrides: object, on: bool
) -> None:
    """Whoever says off wins, wherever it is said."""
    effective = read_settings(home_with(tmp_path, toml, overrides), environ=environ, assignments=assignments)
    assert effective.settings.GLOBAL_TRADING is on


def test_over_recorded_data_set_comes_last(tmp_path: Path) -> None:
    """A replay reads no overrides, and what stands behind --set holds."""
    home = home_with(tmp_path, "GLOBAL_TRADING = false", {"DEBOUNCE_S": {"value": 9}})
    s = read_settings(home, environ={}, assignments=["GLOBAL_TRADING=true"], overrides=False).settings
    assert s.GLOBAL_TRADING
    assert s.DEBOUNCE_S == 3


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("POLL_S = ", "is not a TOML file"),
        ("POL_S = 3", "did you mean POLL_S"),
        ('POLL_S = "3"', "a number >= 0.05 and <= 3600"),
        ("[features]\nx = 1", "has a table [features]: settings stand at the top"),
        ("POSITION_SIZE_QUOTE = 200", "POSITION_SIZE_QUOTE from tradingbot.toml"),
    ],
)
def test_a_broken_settings_file_is_refused_whole(tmp_path: Path, toml: str, words: str) -> None:
    """The error says what is wrong and where it stands."""
    with pytest.raises(SettingsError) as caught:
        read_settings(home_with(tmp_path, toml), environ={})
    assert words in str(caught.value)
    assert caught.value.exit_code == 2


@given(data=st.binary(max_size=200))
def test_no_settings_file_breaks_the_reader(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    """Whatever bytes it holds, a settings or overrides file is read or refused."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "tradingbot.toml").write_bytes(data)
    (folder / "state").mkdir()
    for name in ("tradingbot.toml", "state/overrides.json"):
        (folder / name).write_bytes(data)
        with contextlib.suppress(SettingsError):
            read_settings(Home(folder, "test"), environ={})
        (folder / name).unlink()


def test_broken_overrides_are_never_ignored(tmp_path: Path) -> None:
    """A rollback may stand in them."""
    home = home_with(tmp_path)
    (tmp_path / "state").mkdir()
    for text in ("{", "[]", '{"overrides": 3}', '{"overrides": {"POLL_S": 3}}', '{"overrides": {"NO": {"value": 1}}}'):
        (tmp_path / "state" / "overrides.json").write_text(text)
        with pytest.raises(SettingsError):
            read_settings(home, environ={})


def test_an_assignment_without_a_value_is_answered_by_an_example(tmp_path: Path) -> None:
    """--set KEY is no assignment."""
    with pytest.raises(SettingsError, match="KEY=VALUE"):
        read_settings(Home(tmp_path, "test"), environ={}, assignments=["POLL_S"])


def test_the_nearest_folder_with_a_settings_file_is_home(tmp_path: Path) -> None:
    """Commands work from below the home."""
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    (tmp_path / "tradingbot.toml").write_text("")
    assert find_home(None, {}, below).path == tmp_path
    assert find_home(None, {"TRADINGBOT_HOME": str(below)}, below).path == below
    assert find_home(str(tmp_path / "a"), {"TRADINGBOT_HOME": str(below)}, below).path == tmp_path / "a"


def test_a_found_home_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    """Somebody else's settings are not adopted because one stands below them."""
    (tmp_path / "tradingbot.toml").write_text("")
    tmp_path.chmod(0o777)
    with pytest.raises(UsageError, match="others may write"):
        find_home(None, {}, tmp_path)
    tmp_path.chmod(0o700)
    (tmp_path / "tradingbot.toml").chmod(0o666)
    with pytest.raises(UsageError, match="others may write"):
        find_home(None, {}, tmp_path)


def test_a_found_home_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor are those of another user."""
    (tmp_path / "tradingbot.toml").write_text("")
    somebody_else = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: somebody_else)
    with pytest.raises(UsageError, match="another user"):
        find_home(None, {}, tmp_path)
