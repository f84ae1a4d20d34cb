"""Settings: checked once, with errors that name key, value and what is allowed."""

from __future__ import annotations

import math

import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradingbot.config import (
    FLAGS,
    Settings,
    check_value,
    fingerprint,
    json_schema,
    make_settings,
    parse_text,
    registry,
)
from tradingbot.errors import SettingsError


def test_every_default_is_allowed() -> None:
    """The settings as they come are valid, and a copy of them is equal."""
    values = msgspec.structs.asdict(Settings())
    assert make_settings(values) == Settings()


def test_an_unknown_key_is_an_error_with_the_nearest_name() -> None:
    """A typo is answered by the name that was meant."""
    with pytest.raises(SettingsError, match=r"DROP_TRIGER_VALUE.*did you mean DROP_TRIGGER_VALUE"):
        make_settings({"DROP_TRIGER_VALUE": 0.98})


def test_lower_case_is_answered_by_the_upper_case_name() -> None:
    """A key in the wrong case is a typo like any other."""
    with pytest.raises(SettingsError, match="did you mean GLOBAL_TRADING"):
        make_settings({"global_trading": True})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GLOBAL_TRADING", "yes"),
        ("GLOBAL_TRADING", 1),
        ("DROP_TRIGGER_MODE", 5),
        ("DROP_TRIGGER_MODE", True),
        ("BUY_MODE", "raw"),
        ("POLL_S", "2"),
        ("POLL_S", 0),
        ("POLL_S", math.nan),
        ("POLL_S", 10**400),
        ("CONFIRM_TICKS", 1.5),
        ("CONFIRM_TICKS", -1),
        ("DROP_TRIGGER_VALUE", 1),
        ("DROP_TRIGGER_VALUE", 0),
        ("TAKE_PROFIT_THRESHOLD", 1.0),
        ("STOP_LOSS_THRESHOLD", 1.0),
        ("TRAILING_ACTIVATION", 1.0),
        ("TRAILING_DISTANCE", 1.0),
        ("MAX_LOSSES_IN_ROW", 0),
        ("ANCHOR_MAX_START_DROP_PCT", 100),
        ("SYMBOLS", "BTC/USDT"),
        ("SYMBOLS", [1]),
        ("SYMBOLS", [""]),
        ("STATE_DIR", "a\0b"),
        ("LOG_LEVEL", None),
    ],
)
def test_what_is_not_allowed_is_named_with_key_value_and_range(name: str, value: object) -> None:
    """The error carries everything that is needed to mend it."""
    with pytest.raises(SettingsError) as caught:
        make_settings({name: value})
    text = str(caught.value)
    assert name in text
    assert registry()[name].allowed in text
    assert repr(value)[:70] in text


@pytest.mark.parametrize(
    "changes",
    [
        {"RETRY_BASE_S": 61},
        {"POSITION_SIZE_QUOTE": 101},
        {"MAX_ORDER_QUOTE": 101},
        {"MAX_SYMBOL_QUOTE": 301, "MAX_ORDER_QUOTE": 50},
        {"MAX_EXPOSURE_QUOTE": 99},
    ],
)
def test_an_impossible_pair_is_refused(changes: dict[str, object]) -> None:
    """Settings that contradict each other are an error that names both."""
    with pytest.raises(SettingsError, match=r"\w+ = \S+ and \w+ = \S+ do not go together"):
        make_settings(changes)


def test_a_replacement_is_checked_too() -> None:
    """No way of making settings goes round the checks."""
    with pytest.raises(SettingsError):
        msgspec.structs.replace(Settings(), POLL_S=-1.0)


def test_whole_numbers_stand_for_floats_and_the_other_way_round() -> None:
    """25 and 25.0 are one setting; 4.0 is mode 4."""
    settings = make_settings({"POSITION_SIZE_QUOTE": 25, "DROP_TRIGGER_MODE": 4.0})
    assert settings == Settings()
    assert type(settings.POSITION_SIZE_QUOTE) is float
    assert type(settings.DROP_TRIGGER_MODE) is int


@given(st.sampled_from(sorted(registry())), st.text() | st.integers() | st.floats() | st.booleans() | st.none())
def test_any_value_is_taken_or_refused_and_never_breaks(name: str, value: object) -> None:
    """Whatever stands in a settings file, the answer is a value of the right type or a SettingsError."""
    try:
        checked = check_value(name, value)
    except SettingsError:
        return
    assert check_value(name, checked) == checked


@given(st.sampled_from(sorted(registry())), st.text())
def test_any_text_is_taken_or_refused_and_never_breaks(name: str, text: str) -> None:
    """The same holds for the environment and --set."""
    try:
        checked = parse_text(name, text)
    except SettingsError:
        return
    assert check_value(name, checked) == checked


@pytest.mark.parametrize("text", ["true", "True", "ON", "yes", "1"])
def test_words_for_on(text: str) -> None:
    """People write booleans in many ways."""
    assert parse_text("GLOBAL_TRADING", text) is True


def test_a_list_is_read_from_commas_or_json() -> None:
    """Both spellings of a list give the same symbols."""
    assert parse_text("SYMBOLS", "BTC/USDT, ETH/USDT") == parse_text("SYMBOLS", '["BTC/USDT","ETH/USDT"]')
    assert parse_text("SYMBOLS", "") == ()


def test_the_fingerprint_follows_decisions_only() -> None:
    """A setting that no decision depends on leaves the fingerprint alone; one that any depends on changes it."""
    base = fingerprint(Settings())
    assert len(base) == 16
    assert fingerprint(make_settings({"POLL_S": 1, "LOG_LEVEL": "DEBUG"})) == base
    assert fingerprint(make_settings({"DEBOUNCE_S": 4})) != base
    assert fingerprint(make_settings({"PAPER_START_QUOTE": 4})) != base


def test_the_schema_accepts_the_defaults_and_refuses_what_settings_refuse() -> None:
    """An editor that knows the schema marks the errors that a start would name."""
    validator = jsonschema.Draft202012Validator(json_schema())
    defaults = {
        name: list(setting.default) if setting.kind == "list" else setting.default
        for name, setting in registry().items()
    }
    validator.validate(defaults)
    for broken in ({"POLL_S": 0}, {"BUY_MODE": "x"}, {"NO_SUCH": 1}, {"SYMBOLS": "x"}, {"GLOBAL_TRADING": "on"}):
        assert not validator.is_valid(defaults | broken), broken


def test_the_four_flags_are_settings_that_are_on() -> None:
    """A flag's registry entry names a real setting, on by default."""
    assert sorted(FLAGS) == sorted(name for name in registry() if name.startswith("FEATURE_"))
    assert all(registry()[name].default is True for name in FLAGS)
