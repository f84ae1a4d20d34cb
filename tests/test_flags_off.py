"""Off means not called: with every combination of flags the whole journey passes without the features that are off."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from tests.lives import decisions_on_disk
from tradingbot.config import FLAGS
from tradingbot.io.home import find_home
from tradingbot.io.overrides import read_settings
from tradingbot.io.stream_writer import StreamWriter
from tradingbot.io.streams import JOURNAL, Stream
from tradingbot.market.anchor_manager import AnchorManager
from tradingbot.ops.record.prove import prove
from tradingbot.services import keeper, market_data
from tradingbot.services.session import Session
from tradingbot.services.virtual import VirtualLoop, run_virtual
from tradingbot.services.warm_start import _Recovery
from tradingbot.simulated.faults import read_faults

FAULTS = "".join(
    f'[[fault]]\non = "{on}"\ndoes = "crossed"\nfrom_s = 60\nto_s = 120\n'
    for on in ("stream *@ticker", "stream *@bookTicker", "GET ticker/24hr")
)


class CalledError(AssertionError):
    """Say that something was called that is switched off."""


def forbidden(*_: Any, **__: Any) -> Any:
    raise CalledError


@contextmanager
def unreachable(off: set[str]) -> Iterator[None]:
    """Let the entry points of the features that are off raise."""
    with ExitStack() as stack:
        if "FEATURE_ANCHOR_ENABLED" in off:
            stack.enter_context(patch.object(AnchorManager, "advance", forbidden))
            stack.enter_context(patch.object(AnchorManager, "filled", forbidden))
            stack.enter_context(patch.object(keeper, "save_anchors", forbidden))
        if "FEATURE_PERSIST_STREAMS" in off:
            put = StreamWriter.put

            def put_journal(writer: StreamWriter, stream: Stream, series: str, ts_ms: int, line: bytes) -> None:
                if stream is not JOURNAL:
                    raise CalledError
                put(writer, stream, series, ts_ms, line)

            stack.enter_context(patch.object(StreamWriter, "put", put_journal))
        if "FEATURE_RETRY_BACKOFF" in off:
            stack.enter_context(patch.object(market_data, "Retry", forbidden))
        if "FEATURE_WARMSTART_TICKS" in off:
            stack.enter_context(patch.object(_Recovery, "_go_on", forbidden))
            stack.enter_context(patch.object(_Recovery, "_build", forbidden))
        yield


def run(home: Path, off: set[str], seconds: float) -> Session:
    """Run a bot in virtual time with these flags off, through a minute in which the exchange fails."""
    words = [f"{name}=false" for name in sorted(off)]
    settings = ["EMBEDDED_SYMBOLS=3", "DROP_TRIGGER_VALUE=0.997", "GLOBAL_TRADING=true", "ENTRY_BURST_MAX=50"]
    effective = read_settings(find_home(str(home), {}, home), assignments=[*settings, *words], environ={})
    script = home / "faults.toml"
    script.write_text(FAULTS)
    return run_virtual(effective, seconds, VirtualLoop(), faults=read_faults(script))


@pytest.mark.parametrize(
    "off", [set(names) for count in range(5) for names in itertools.combinations(FLAGS, count)],
    ids=lambda off: "-".join(sorted(name.split("_")[1].lower() for name in off)) or "none",
)  # fmt: skip
def test_a_whole_journey_never_calls_what_is_off(tmp_path: Path, off: set[str]) -> None:
    """Start, watch, fall back, trade, stop, start again, stop; and what is recorded is proved."""
    with unreachable(off):
        first = run(tmp_path, off, 900)
        again = run(tmp_path, off, 300)
    assert first.signals.triggers > 3
    assert again.recovered is not None
    assert again.recovered.kind == ("cold" if "FEATURE_WARMSTART_TICKS" in off else "warm")
    state = tmp_path / "state"
    assert (state / "anchors" / "anchors.json").exists() == ("FEATURE_ANCHOR_ENABLED" not in off)
    ticks = state / "drop_windows" / "ticks"
    assert (ticks.is_dir() and any(ticks.iterdir())) == ("FEATURE_PERSIST_STREAMS" not in off)
    decided = decisions_on_disk(state)
    assert len(decided) == first.signals.triggers + again.signals.triggers
    assert not any("restart" in reasons for reasons in decided.values())
    if "FEATURE_PERSIST_STREAMS" not in off:
        assert prove(state).exit_code == 0


@pytest.mark.parametrize("name", list(FLAGS))
def test_the_entry_points_are_those_of_the_feature(tmp_path: Path, name: str) -> None:
    """With the flag on they are called: else the journeys above would prove nothing."""

    def journey() -> None:
        run(tmp_path, set(), 900)
        run(tmp_path, set(), 10)

    with unreachable({name}), pytest.raises(CalledError):
        journey()
