"""Every setting once: name, type, default, range and meaning, frozen and checked when made; and the feature flags."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from functools import cache
from itertools import pairwise
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec
import orjson

from tradingbot.errors import SettingsError
from tradingbot.features import FLAGS, Flag

__all__ = [
    "CHAINS",
    "FLAGS",
    "Flag",
    "Setting",
    "Settings",
    "check_value",
    "fingerprint",
    "json_schema",
    "make_settings",
    "parse_text",
    "registry",
]


class Setting(msgspec.Struct, frozen=True):
    """Describe one setting: what it means, what is allowed, when a change takes effect."""

    meaning: str
    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None
    restart: bool = False
    engine: bool = False
    name: str = ""
    group: str = ""
    kind: str = ""  # bool, int, float, str or list
    choices: tuple[Any, ...] = ()
    default: Any = None

    @property
    def allowed(self) -> str:
        """Say in words which values are allowed."""
        if self.choices:
            return "one of " + ", ".join(_show(choice) for choice in self.choices)
        words = {
            "bool": "true or false",
            "int": "a whole number",
            "float": "a number",
            "str": "a text" if self.default == "" else "a text that is not empty",
            "list": "a list of texts",
        }[self.kind]
        bounds = [(">=", self.ge), (">", self.gt), ("<=", self.le), ("<", self.lt)]
        limits = " and ".join(f"{sign} {bound:g}" for sign, bound in bounds if bound is not None)
        return f"{words} {limits}".strip()


def _live(meaning: str, **limits: float) -> Setting:
    return Setting(meaning, **limits)  # type: ignore[arg-type]


def _restart(meaning: str, **limits: float) -> Setting:
    return Setting(meaning, restart=True, **limits)  # type: ignore[arg-type]


def _engine(meaning: str, **limits: float) -> Setting:
    return Setting(meaning, engine=True, **limits)  # type: ignore[arg-type]


_DAY_S = 86_400
MAX_INT = 10**12  # of a whole number without a bound of its own: sums of a few still fit 64 bits
_GROUPS = {
    "GLOBAL_TRADING": "mode",
    "FEATURE_ANCHOR_ENABLED": "features",
    "SYMBOLS": "universe",
    "MARKET_DATA": "market data",
    "WINDOW_LOOKBACK_S": "window and anchor",
    "DROP_TRIGGER_VALUE": "trigger",
    "POSITION_SIZE_QUOTE": "entry",
    "TAKE_PROFIT_THRESHOLD": "exit",
    "PAPER_START_QUOTE": "paper",
    "MAX_SLIPPAGE_BPS": "orders (live)",
    "MAX_FILE_MB": "streams",
    "STATE_DIR": "places",
    "EMBEDDED_SEED": "embedded exchange",
}  # the first setting of each group, in order of declaration


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Hold every setting, checked: an impossible value or pair raises SettingsError and names it."""

    # fmt: off
    GLOBAL_TRADING: Annotated[bool, Setting("orders are placed (off: observe, never an order of any kind)", engine=True)] = False
    TRADING_MODE: Annotated[Literal["paper", "live"], Setting("where orders go while GLOBAL_TRADING is on", restart=True, engine=True)] = "paper"
    EXCHANGE: Annotated[str, _restart("'embedded' or any ccxt exchange id")] = "embedded"
    QUOTE: Annotated[str, _restart("the quote currency of the universe and of the account")] = "USDT"

    FEATURE_ANCHOR_ENABLED: Annotated[bool, _engine("anchors rule the reference (off: the legacy window peak)")] = True
    FEATURE_PERSIST_STREAMS: Annotated[bool, _live("ticks, snapshots, windows and anchors are recorded")] = True
    FEATURE_RETRY_BACKOFF: Annotated[bool, _live("a symbol that fails waits before it is asked again")] = True
    FEATURE_WARMSTART_TICKS: Annotated[bool, _restart("a start goes on from checkpoint and recorded ticks")] = True

    SYMBOLS: Annotated[tuple[str, ...], _restart("symbols to watch (empty: the TOP_N by quote volume)")] = ()
    TOP_N: Annotated[int, _restart("how many symbols to watch where SYMBOLS is empty", ge=1, le=2000)] = 20
    EXCLUDE: Annotated[tuple[str, ...], _restart("patterns of symbols that the TOP_N leaves out")] = ("*UP/*", "*DOWN/*", "*BULL/*", "*BEAR/*", "*3L/*", "*3S/*")
    MIN_24H_QUOTE_VOLUME: Annotated[float, _engine("no entry below this quote volume of 24 h", ge=0)] = 100_000.0

    MARKET_DATA: Annotated[Literal["stream", "poll"], _live("where tickers come from")] = "stream"
    POLL_S: Annotated[float, _live("seconds between two polls", ge=0.05, le=3600)] = 2.5
    WATCHDOG_S: Annotated[float, _live("seconds without an accepted ticker until a feed counts as dead", gt=0, le=_DAY_S)] = 10.0
    REQUEST_TIMEOUT_S: Annotated[float, _live("seconds until a request is given up", gt=0, le=600)] = 10.0
    HEARTBEAT_S: Annotated[float, _live("seconds between two HEARTBEAT lines", gt=0, le=_DAY_S)] = 60.0
    TICKER_MAX_AGE_S: Annotated[float, _engine("a ticker older than this, in seconds, is stale", gt=0)] = 30.0
    TICKER_MAX_AHEAD_S: Annotated[float, _engine("a ticker further ahead of our clock, in seconds, is from the future", ge=0)] = 5.0
    TICKER_MAX_JUMP_PCT: Annotated[float, _engine("largest step between two prices, or from last to bid or ask, in %", gt=0, le=1_000_000)] = 20.0
    RETRY_BASE_S: Annotated[float, _live("first bound of a symbol's retry delay, in seconds", gt=0)] = 1.0
    RETRY_MAX_S: Annotated[float, _live("last bound of a symbol's retry delay, in seconds", gt=0, le=_DAY_S)] = 60.0

    WINDOW_LOOKBACK_S: Annotated[float, _engine("length of the rolling window, in seconds", ge=0.001, le=30 * _DAY_S)] = 300.0
    WINDOW_STRICT_WARMUP: Annotated[bool, _engine("no trigger before a symbol has been seen for one whole window")] = False
    DROP_TRIGGER_MODE: Annotated[Literal[1, 2, 3, 4], _engine("reference: 1 session peak, 2 window peak, 3 the higher of both, 4 persistent anchor")] = 4
    ANCHOR_STALE_MINUTES: Annotated[float, _engine("an anchor not set for longer is set anew to the window peak", gt=0)] = 60.0
    ANCHOR_MAX_AGE_HOURS: Annotated[float, _engine("a persisted anchor older than this is not loaded", gt=0)] = 24.0
    ANCHOR_CLAMP_MAX_ABOVE_PEAK_PCT: Annotated[float, _engine("how far an anchor may stand above the session peak, in %", ge=0)] = 0.5
    ANCHOR_MAX_START_DROP_PCT: Annotated[float, _engine("largest drop from a loaded anchor at a symbol's first tick, in %", ge=0, lt=100)] = 8.0

    DROP_TRIGGER_VALUE: Annotated[float, _engine("threshold as a share of the reference (0.985: a drop of 1.5 %)", gt=0, lt=1)] = 0.985
    BUY_MODE: Annotated[Literal["RAW", "PREDICTIVE"], _engine("PREDICTIVE multiplies the threshold by PREDICTIVE_BUY_ZONE_PCT")] = "RAW"
    PREDICTIVE_BUY_ZONE_PCT: Annotated[float, _engine("factor (not percent) on the threshold in BUY_MODE PREDICTIVE", gt=0, le=1)] = 0.995
    HYSTERESIS_BPS: Annotated[float, _engine("how far above the threshold a symbol arms again, in basis points", ge=0)] = 5.0
    CONFIRM_TICKS: Annotated[int, _engine("further ticks in a row that must stay at or under the threshold", ge=0)] = 0
    DEBOUNCE_S: Annotated[float, _engine("shortest time between two triggers of a symbol, in seconds", ge=0, le=_DAY_S)] = 3.0

    POSITION_SIZE_QUOTE: Annotated[float, _engine("size of one buy, in quote", gt=0)] = 25.0
    MAX_CONCURRENT_POSITIONS: Annotated[int, _engine("most positions and open buys at a time", ge=0)] = 3
    COOLDOWN_MIN: Annotated[float, _engine("minutes after an exit without a new entry in that symbol", ge=0)] = 15.0
    MAX_SPREAD_BPS: Annotated[float, _engine("no entry above this spread, in basis points of the mid", ge=0)] = 50.0
    MAX_ENTRY_AWAY_BPS: Annotated[float, _engine("no entry while ask is further above last, in basis points", ge=0)] = 30.0
    ENTRY_BURST_MAX: Annotated[int, _engine("most entries, of all symbols, within ENTRY_BURST_S", ge=0)] = 2
    ENTRY_BURST_S: Annotated[float, _engine("seconds over which ENTRY_BURST_MAX counts", ge=0, le=_DAY_S)] = 60.0
    MAX_DAILY_LOSS_PCT: Annotated[float, _engine("no entry once today's losses exceed this share of the day's equity, in %", ge=0)] = 8.0
    MAX_LOSSES_IN_ROW: Annotated[int, _engine("no entry for an hour after so many losing trades in a row", ge=1)] = 5
    MAX_TRADES_PER_DAY: Annotated[int, _engine("most buys filled in one UTC day", ge=0)] = 120

    TAKE_PROFIT_THRESHOLD: Annotated[float, _engine("sell at this multiple of the entry price", gt=1)] = 1.005
    STOP_LOSS_THRESHOLD: Annotated[float, _engine("sell at this multiple of the entry price", gt=0, lt=1)] = 0.990
    USE_TRAILING_STOP: Annotated[bool, _engine("sell once the price falls back from its height")] = False
    TRAILING_ACTIVATION: Annotated[float, _engine("height, as a multiple of the entry price, from which the trailing stop holds", gt=1)] = 1.003
    TRAILING_DISTANCE: Annotated[float, _engine("trailing stop as a multiple of the height", gt=0, lt=1)] = 0.998
    TRADE_TTL_MIN: Annotated[float, _engine("minutes after which a position is sold whatever its price", gt=0)] = 120.0

    PAPER_START_QUOTE: Annotated[float, Setting("cash that a paper account starts with, in quote", restart=True, engine=True, ge=0)] = 1000.0
    PAPER_LATENCY_MS: Annotated[int, _engine("milliseconds between a decision and the earliest paper fill", ge=0)] = 250
    SLIPPAGE_BPS: Annotated[float, _engine("how much worse than the book a paper fill is, in basis points", ge=0, lt=10_000)] = 2.0
    TAKER_FEE_RATE: Annotated[float, _engine("fee as a share of the notional, in quote", ge=0, lt=1)] = 0.001

    MAX_SLIPPAGE_BPS: Annotated[float, _live("worst price a live order accepts against the book, in basis points", ge=0, lt=10_000)] = 30.0
    ENTRY_TTL_S: Annotated[float, _live("seconds until an unfilled live buy is cancelled", gt=0)] = 4.0
    EXIT_TTL_S: Annotated[float, _live("seconds until an unfilled live sell is cancelled", gt=0)] = 4.0
    MAX_ORDER_QUOTE: Annotated[float, _live("largest single order, in quote", gt=0)] = 100.0
    MAX_SYMBOL_QUOTE: Annotated[float, _live("largest holding of one symbol, in quote", gt=0)] = 100.0
    MAX_EXPOSURE_QUOTE: Annotated[float, _live("largest holding of all symbols together, in quote", gt=0)] = 300.0
    MAX_DAILY_SPEND_QUOTE: Annotated[float, _live("most quote spent on buys in one UTC day", ge=0)] = 2000.0
    MAX_ORDERS_PER_MIN: Annotated[int, _live("most orders sent in a minute", ge=1)] = 20
    PRICE_COLLAR_PCT: Annotated[float, _live("no order further from the last price, in %", gt=0)] = 2.0
    RECONCILE_S: Annotated[float, _live("seconds between two reconciliations with the exchange", gt=0)] = 60.0
    KILL_POSITIONS: Annotated[Literal["keep", "close"], _live("what the kill switch does with open positions")] = "keep"

    MAX_FILE_MB: Annotated[float, _live("a segment of a stream is sealed at this size", gt=0)] = 50.0
    SNAPSHOT_MIN_PERIOD_MS: Annotated[int, _live("shortest time between two snapshots of a symbol", ge=0)] = 500
    STREAM_FLUSH_MS: Annotated[int, _live("most that kill -9 may take of a stream, in milliseconds", ge=1)] = 200
    STREAM_FSYNC_S: Annotated[float, _live("most that a power loss may take of a stream, in seconds", gt=0)] = 1.0
    STREAMS_MAX_GB: Annotated[float, _live("bound on the four streams together", gt=0)] = 10.0
    TICKS_RETENTION_DAYS: Annotated[int, _live("days that ticks are kept (0: bounded by size alone)", ge=0)] = 0
    MIN_FREE_MB: Annotated[float, _live("recording stops while the disk has less room", ge=0)] = 500.0
    JOURNAL_RETENTION_DAYS: Annotated[int, _live("days that the journal is kept", ge=1)] = 400
    CHECKPOINT_S: Annotated[float, _live("longest time between two checkpoints while something changes, in seconds", gt=0)] = 5.0
    WARMSTART_MAX_TICKS: Annotated[int, _live("ticks of a symbol read at a start without a checkpoint", ge=0)] = 300
    WARMSTART_MAX_S: Annotated[float, _live("seconds after which the rest of a warm start is cold", gt=0)] = 5.0

    STATE_DIR: Annotated[str, _restart("state directory, relative to the home")] = "state"
    LOG_DIR: Annotated[str, _restart("log directory, relative to the home")] = "logs"
    ARCHIVE_DIR: Annotated[str, _live("archives, relative to the home")] = "archives"
    REPORT_DIR: Annotated[str, _live("executed reports, relative to the home")] = "reports"
    LOG_LEVEL: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], _live("least severity that is logged")] = "INFO"
    LOG_MAX_MB: Annotated[float, _restart("a log file is rotated at this size", gt=0)] = 50.0
    STOP_TIMEOUT_S: Annotated[float, _live("seconds that a clean stop may take", gt=0)] = 20.0

    EMBEDDED_SEED: Annotated[int, _restart("seed of the synthetic market", ge=0)] = 7
    EMBEDDED_SPEED: Annotated[float, _restart("how many times faster than real time the embedded market runs", gt=0, le=100_000)] = 1.0
    EMBEDDED_SYMBOLS: Annotated[int, _restart("how many symbols the synthetic market has", ge=1, le=2000)] = 12
    EMBEDDED_MARKET: Annotated[str, _restart("'synthetic' or a data file to play")] = "synthetic"
    EMBEDDED_URL: Annotated[str, _restart("loopback address of an embedded exchange that already runs (empty: its own)")] = ""
    # fmt: on

    def __post_init__(self) -> None:
        for setting in registry().values():
            raw = getattr(self, setting.name)
            value = check_value(setting.name, raw)
            if value is not raw:
                msgspec.structs.force_setattr(self, setting.name, value)
        _cross_check(self)


@cache
def registry() -> dict[str, Setting]:
    """Return every setting by name, in the order of the documentation."""
    hints = get_type_hints(Settings, include_extras=True)
    defaults = {field.name: field.default for field in msgspec.structs.fields(Settings)}
    found: dict[str, Setting] = {}
    group = ""
    for name, default in defaults.items():
        declared, setting = get_args(hints[name])
        group = _GROUPS.get(name, group)
        choices = get_args(declared) if get_origin(declared) is Literal else ()
        kind = "list" if isinstance(default, tuple) else type(default).__name__
        most = MAX_INT if kind == "int" and setting.le is None else setting.le
        found[name] = msgspec.structs.replace(
            setting, name=name, group=group, kind=kind, choices=choices, default=default, le=most
        )
    return found


def check_value(name: str, value: object, where: str = "") -> Any:
    """Return `value` as the type of setting `name`; raise SettingsError if it is not allowed or the name is unknown."""
    setting = _known(name, where)
    fits: Any = None
    if setting.kind == "bool":
        fits = value if isinstance(value, bool) else None
    elif setting.kind == "list":
        fits = _texts(value)
    elif setting.kind == "str":
        empty = value == "" and setting.default != ""
        fits = value if isinstance(value, str) and "\0" not in value and not empty else None
    elif isinstance(value, int | float) and not isinstance(value, bool):
        fits = _number(setting, value)
    if fits is None or (setting.choices and fits not in setting.choices):
        raise SettingsError(f"{name} = {_show(value)}{_from(where)} is not allowed: it takes {setting.allowed}")
    return fits


def _number(setting: Setting, value: float) -> float | None:
    try:
        number = float(value)
    except OverflowError:
        return None
    inside = (
        math.isfinite(number)
        and (setting.ge is None or number >= setting.ge)
        and (setting.gt is None or number > setting.gt)
        and (setting.le is None or number <= setting.le)
        and (setting.lt is None or number < setting.lt)
    )
    if not inside or (setting.kind == "int" and not number.is_integer()):
        return None
    return int(value) if setting.kind == "int" else number


def _texts(value: object) -> tuple[str, ...] | None:
    if isinstance(value, list | tuple) and all(isinstance(item, str) and item and "\0" not in item for item in value):
        return tuple(value)
    return None


def parse_text(name: str, text: str, where: str = "") -> Any:
    """Return the value that `text` (an environment variable, or --set) gives setting `name`; raise SettingsError."""
    setting = _known(name, where)
    value: object = text
    stripped = text.strip()
    if setting.kind == "bool":
        words = {
            "true": True,
            "on": True,
            "yes": True,
            "1": True,
            "false": False,
            "off": False,
            "no": False,
            "0": False,
        }
        value = words.get(stripped.lower(), text)
    elif setting.kind == "list":
        value = _parse_list(stripped)
    elif setting.kind in ("int", "float"):
        for number in (int, float):
            try:
                value = number(stripped)
                break
            except ValueError:
                continue
    return check_value(name, value, where)


def _parse_list(text: str) -> object:
    if text.startswith("["):
        try:
            return orjson.loads(text)
        except orjson.JSONDecodeError:
            return text
    return [item.strip() for item in text.split(",") if item.strip()]


def make_settings(values: Mapping[str, object] | None = None, **more: object) -> Settings:
    """Build Settings from names and values; raise SettingsError for an unknown name, with the nearest known one."""
    merged = {**(values or {}), **more}
    return Settings(**{name: check_value(name, value) for name, value in merged.items()})


def fingerprint(settings: Settings) -> str:
    """Return SHA-256 over the settings that decisions depend on, as canonical JSON: 16 hex digits."""
    engine = {name: getattr(settings, name) for name, setting in registry().items() if setting.engine}
    return hashlib.sha256(orjson.dumps(engine, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a settings file."""
    types = {"bool": "boolean", "int": "integer", "float": "number", "str": "string", "list": "array"}
    limits = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}
    properties: dict[str, Any] = {}
    for name, setting in registry().items():
        entry: dict[str, Any] = {"type": types[setting.kind], "default": setting.default}
        if setting.kind == "list":
            entry["items"] = {"type": "string", "minLength": 1}
        if setting.choices:
            entry["enum"] = list(setting.choices)
        entry |= {word: bound for key, word in limits.items() if (bound := getattr(setting, key)) is not None}
        entry["description"] = f"{setting.meaning} ({'at the next start' if setting.restart else 'live'})"
        properties[name] = entry
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "tradingbot.toml",
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
    }


CHAINS = (
    ("RETRY_BASE_S", "RETRY_MAX_S"),
    ("POSITION_SIZE_QUOTE", "MAX_ORDER_QUOTE", "MAX_SYMBOL_QUOTE", "MAX_EXPOSURE_QUOTE"),
)  # each at most the next; what must stand below or above 1 is in the ranges


def _cross_check(settings: Settings) -> None:
    for chain in CHAINS:
        for low, high in pairwise(chain):
            small, large = getattr(settings, low), getattr(settings, high)
            if small > large:
                raise SettingsError(
                    f"{low} = {_show(small)} and {high} = {_show(large)} do not go together: "
                    f"it takes {' <= '.join(chain)}"
                )


def _known(name: str, where: str) -> Setting:
    setting = registry().get(name)
    if setting is None:
        import difflib  # only for an error

        near = difflib.get_close_matches(name.upper(), registry(), n=1, cutoff=0.5)
        hint = f": did you mean {near[0]}?" if near else "; `tradingbot config` lists them all"
        raise SettingsError(f"there is no setting {_show(name)}{_from(where)}{hint}")
    return setting


def _from(where: str) -> str:
    return f" (from {where})" if where else ""


def _show(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
