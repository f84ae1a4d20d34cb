"""A scratch session: the real bot in virtual time, in a folder of its own, over a market that falls by script."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson
from msgspec.structs import asdict

from tradingbot.config import Settings, make_settings
from tradingbot.io.jsonl import read_jsonl
from tradingbot.io.segments import list_segments
from tradingbot.io.streams import FOLDERS, JOURNAL

__all__ = ["Scratch", "Tried", "bare_environment"]

BEGAN_MS = 1_767_225_600_000  # 2026-01-01: any time would do
PRICE = 1000.0
VALUE = 0.999  # the aggressive DROP_TRIGGER_VALUE
MOST_CONFIRM, MOST_STEPS, MOST_LOOKBACK_S = 600, 600, 1800.0
QUIET_S, AFTER_S = 10, 10
TIMEOUT_S = 60.0
PLACES = ("STATE_DIR", "LOG_DIR", "ARCHIVE_DIR", "REPORT_DIR")
PASSED = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "TZ", "TMPDIR", "TERM", "VIRTUAL_ENV")


@dataclass(frozen=True, slots=True)
class Tried:
    """Hold what a scratch session has done.

    `falling` and `still` are the symbols of the market, `fired` the decisions on each; `due_ms` is when, by the script,
    the falling one first stands under its threshold. `changed` are the settings that it did not take from the bot.
    """

    falling: str
    still: str
    fired: dict[str, list[dict[str, Any]]]
    due_ms: int
    depth_pct: float
    ticks: int
    changed: dict[str, Any]
    trouble: str = ""


def bare_environment() -> dict[str, str]:
    """Return an environment for a program of ours that needs no secret: none of the operator's is handed on."""
    return {name: value for name in PASSED if (value := os.environ.get(name))} | {"PYTHONDONTWRITEBYTECODE": "1"}


class Scratch:
    """Run a scratch session in a process and a temporary folder of its own, while in use; it knows nothing of the bot.

    Entering begins it, `result` waits for its end. Raises OSError where there is no room for it.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings, self._changed = _scratch_settings(settings)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.folder = Path(tempfile.mkdtemp(prefix="tradingbot-verify-"))
        try:
            self._begin()
        except BaseException:  # Ctrl-C too: nobody else would remove the folder
            shutil.rmtree(self.folder, ignore_errors=True)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _begin(self) -> None:
        market = self.folder / "market.csv"
        self._falling, self._still = (f"{base}/{self._settings.QUOTE}" for base in ("FALLS", "STAYS"))
        rows, self._due_ms, self._depth = _script(self._settings)
        lines = ["ts_ms,symbol,last,quote_volume"]
        for ts_ms, falls, stays in rows:
            lines += [f"{ts_ms},{self._falling},{falls!r},1e9", f"{ts_ms},{self._still},{stays!r},1e9"]
        market.write_text("\n".join(lines) + "\n")
        chosen = asdict(self._settings) | {"EMBEDDED_MARKET": str(market), "SYMBOLS": [self._falling, self._still]}
        toml = "".join(f"{name} = {_toml(value)}\n" for name, value in chosen.items())
        (self.folder / "tradingbot.toml").write_text(toml)
        duration_s = (rows[-1][0] - rows[0][0]) / 1000 + AFTER_S
        words = ["--home", str(self.folder), "--virtual", "--duration", f"{duration_s:g}", "--no-dashboard"]
        with (self.folder / "said").open("wb") as said:
            self._process = subprocess.Popen(  # noqa: S603  (our own interpreter, no shell)
                [sys.executable, "-m", "tradingbot", *words], stdin=subprocess.DEVNULL, stdout=said, stderr=said,
                env=_environment(), cwd=self.folder, start_new_session=True,
            )  # fmt: skip

    def result(self) -> Tried:
        """Return what it has done, once it has ended."""
        assert self._process is not None
        try:
            code = self._process.wait(TIMEOUT_S)
            trouble = "" if code == 0 else f"it ended with exit code {code}: {self._last_words()}"
        except subprocess.TimeoutExpired:
            trouble = f"it did not end within {TIMEOUT_S:g} s"
        state = self.folder / "state"
        fired: dict[str, list[dict[str, Any]]] = {self._falling: [], self._still: []}
        journal = state / FOLDERS[JOURNAL]
        for found in read_jsonl(segment.path for segment in list_segments(journal)) if journal.is_dir() else ():
            if found.record.get("type") == "decision":
                fired.setdefault(found.record["symbol"], []).append(found.record)
        ticks = 0
        if not trouble:
            ticks = orjson.loads((state / "status.json").read_bytes())["data"]["ticks"]
        return Tried(self._falling, self._still, fired, self._due_ms, self._depth, ticks, self._changed, trouble)

    def _last_words(self) -> str:
        lines = (self.folder / "said").read_text(errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else "it said nothing"


def _environment() -> dict[str, str]:
    """Return the environment, with which this very package is found whatever the working directory."""
    root = str(Path(__file__).resolve().parents[3])
    return bare_environment() | {"PYTHONPATH": root}


def _scratch_settings(settings: Settings) -> tuple[Settings, dict[str, Any]]:
    """Return the settings of a scratch session: the bot's own, but for what makes it one; and what that is."""
    s = settings
    wanted: dict[str, Any] = {
        "DROP_TRIGGER_VALUE": VALUE, "EXCHANGE": "embedded", "TRADING_MODE": "paper", "EMBEDDED_URL": "",
        "EMBEDDED_SPEED": 1.0, "STATE_DIR": "state", "LOG_DIR": "logs", "ARCHIVE_DIR": "archives",
        "REPORT_DIR": "reports", "LOG_LEVEL": "INFO", "MIN_FREE_MB": 0.0, "POLL_S": min(s.POLL_S, 1.0),
        "WATCHDOG_S": max(s.WATCHDOG_S, 10.0), "CONFIRM_TICKS": min(s.CONFIRM_TICKS, MOST_CONFIRM),
        "TICKER_MAX_JUMP_PCT": max(s.TICKER_MAX_JUMP_PCT, _least_jump_pct(s)),
    }  # fmt: skip
    if s.WINDOW_STRICT_WARMUP:
        wanted["WINDOW_LOOKBACK_S"] = min(s.WINDOW_LOOKBACK_S, MOST_LOOKBACK_S)
    changed = {name: value for name, value in wanted.items() if value != getattr(s, name) and name not in PLACES}
    return make_settings(asdict(s) | wanted), changed


def _zone(settings: Settings) -> float:
    return settings.PREDICTIVE_BUY_ZONE_PCT if settings.BUY_MODE == "PREDICTIVE" else 1.0


def _least_jump_pct(settings: Settings) -> float:
    """Return the least TICKER_MAX_JUMP_PCT under which the fall takes no more than MOST_STEPS steps."""
    return 200 * -math.log(VALUE * _zone(settings) * 0.99) / MOST_STEPS


def _script(settings: Settings) -> tuple[list[tuple[int, float, float]], int, float]:
    """Return rows of a second each (ms, falling price, still price), when it is to fire, and how deep in % that is."""
    share = VALUE * _zone(settings)
    bottom, ledge = PRICE * share * 0.9985, PRICE * (1 - (1 - share) / 3)
    step = 1 - min(settings.TICKER_MAX_JUMP_PCT, 40.0) / 200
    quiet = QUIET_S + (math.ceil(settings.WINDOW_LOOKBACK_S) + 2 if settings.WINDOW_STRICT_WARMUP else 0)
    falls = [PRICE] * quiet
    while falls[-1] > bottom:
        falls.append(max(falls[-1] * step, bottom))
    fallen = next(second for second, price in enumerate(falls) if price <= PRICE * share)
    falls += [bottom] * (settings.CONFIRM_TICKS + AFTER_S)
    rows = [
        (BEGAN_MS + second * 1000, round(price, 6), round(max(price, ledge), 6)) for second, price in enumerate(falls)
    ]
    return rows, BEGAN_MS + fallen * 1000, (1 - share) * 100


def _toml(value: Any) -> str:
    """Return a value as TOML spells it, which for ours is as JSON does."""
    if isinstance(value, float):
        return repr(value)
    return orjson.dumps(value).decode()
