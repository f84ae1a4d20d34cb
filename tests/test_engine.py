"""The engine: entries, fills, exits and the account; numbered inputs; control events."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from tests.helpers import S, T, decisions, engine, feed, trades
from tradingbot.config import make_settings, registry
from tradingbot.engine.engine import Engine
from tradingbot.engine.events import (
    AnchorMoved,
    Cancelled,
    ClockStep,
    Condition,
    ConditionName,
    ExitDecided,
    Filled,
    Parked,
    Rejected,
    SettingsChanged,
    WindowMoved,
    to_record,
)
from tradingbot.market.anchor_manager import SavedAnchor
from tradingbot.market.ticker import Ticker

DAY = 86_400


def trading(**settings: Any) -> Engine:
    return engine(GLOBAL_TRADING=True, **settings)


def test_observing_decides_and_orders_nothing() -> None:
    """With GLOBAL_TRADING off there is a decision and never a fill."""
    bot = engine()
    outputs = feed(bot, (0, 100.0), (1, 98.0), (2, 98.0), (3, 90.0))
    assert [(d.outcome, d.reasons) for d in decisions(outputs)] == [("observed", ())]
    assert not bot.portfolio.orders
    assert bot.portfolio.account.cash == 1000


def test_a_buy_fills_on_a_later_tick_at_ask_with_slippage_and_fee() -> None:
    """Never on the tick that decided, not before PAPER_LATENCY_MS, whole, at the book's price made worse."""
    bot = trading()
    outputs = feed(bot, (0, 100.0), (1, 98.0, 97.9, 98.1), (1.249, 98.0, 97.9, 98.2), (1.25, 98.0, 97.9, 98.3))
    (fill,) = [output for output in outputs if isinstance(output, Filled)]
    price = 98.3 * (1 + 2 / 10_000)
    qty = int(25 / price / 1e-8) * 1e-8
    assert (fill.ts_ms, fill.price, fill.qty, fill.fee) == (T + 1250, price, qty, qty * price * 0.001)
    assert bot.portfolio.account.cash == 1000 - (qty * price + qty * price * 0.001)


def test_the_markets_amount_step_rounds_down() -> None:
    """A market that sells in hundredths gets an order in hundredths."""
    bot = Engine(make_settings({"GLOBAL_TRADING": True}), {S: 0.01})
    outputs = feed(bot, (0, 100.0), (1, 98.0), (2, 98.0))
    (fill,) = [output for output in outputs if isinstance(output, Filled)]
    assert fill.qty == 25 * 0.01


def test_a_quantity_of_nothing_is_cancelled_and_not_counted() -> None:
    """An order too small for the market's step leaves no position and no trace in the counters."""
    bot = Engine(make_settings({"GLOBAL_TRADING": True}), {S: 1.0})
    outputs = feed(bot, (0, 100.0), (1, 98.0), (2, 98.0))
    assert [type(output) for output in outputs[1:]] == [Cancelled]
    assert bot.portfolio.account.day_buys == 0
    assert not bot.portfolio.positions


@pytest.mark.parametrize(
    ("settings", "after", "reason"),
    [
        ({}, ((3, 97.0),), "stop_loss"),
        ({}, ((3, 98.6),), "take_profit"),
        ({"TRADE_TTL_MIN": 5}, ((301.9, 98.1), (302, 98.1)), "ttl"),
        ({"USE_TRAILING_STOP": True}, ((3, 98.4), (4, 98.2)), "trailing_stop"),
        ({}, ((3, 98.1, 97.0, 98.2),), "stop_loss"),
    ],
)
def test_each_exit_rule_ends_a_position(settings: dict[str, Any], after: tuple[Any, ...], reason: str) -> None:
    """The exit is decided at bid where there is one, filled on a later tick, and closes one trade."""
    bot = trading(**settings)
    outputs = feed(bot, (0, 100.0), (1, 98.0), (2, 98.0), *after)
    (decided,) = [output for output in outputs if isinstance(output, ExitDecided)]
    assert decided.reason == reason
    assert decided.ts_ms == T + int(after[-1][0] * 1000)
    (trade,) = trades(feed(bot, (1000, 98.0)))
    assert trade.reason == reason
    assert trade.decision_id == f"{S}:{T + 1000}:1"
    fees = trade.qty * trade.entry * 0.001 + trade.qty * trade.exit * 0.001
    assert trade.pnl == trade.qty * (trade.exit - trade.entry) - fees


def test_an_exit_is_looked_at_on_the_very_tick_that_filled() -> None:
    """A book that has fallen away under the entry is left at once."""
    bot = trading()
    outputs = feed(bot, (0, 100.0), (1, 98.0), (2, 98.0, 96.0, 98.1))
    assert [type(output).__name__ for output in outputs] == ["Decision", "Filled", "ExitDecided"]
    assert [output.k for output in outputs[1:]] == [0, 1]


def test_switching_trading_off_cancels_orders_and_lets_positions_rest() -> None:
    """Off means off: no pending order fills, no exit is looked at until it is on again."""
    bot = trading()
    feed(bot, (0, 100.0), (1, 98.0), (2, 98.0), (3, 97.0))
    assert bot.portfolio.orders[S].side == "sell"
    (cancelled,) = bot.process(SettingsChanged(make_settings({})))
    assert isinstance(cancelled, Cancelled)
    assert feed(bot, (4, 97.0), (5, 96.9)) == []
    assert S in bot.portfolio.positions
    bot.process(SettingsChanged(make_settings({"GLOBAL_TRADING": True})))
    (decided,) = feed(bot, (6, 96.9))
    assert isinstance(decided, ExitDecided)
    assert decided.height == 98.0


def reasons_after(bot: Engine, *ticks: Any) -> tuple[str, ...]:
    (decision,) = decisions(feed(bot, *ticks))
    return decision.reasons


DROP: tuple[Any, ...] = ((0, 100.0), (1, 98.0))


@pytest.mark.parametrize("name", list(ConditionName))
def test_a_condition_blocks_while_it_holds(name: ConditionName) -> None:
    """Killed, degraded, unreconciled and restart each block under their own name."""
    bot = trading()
    bot.process(Condition(name, "because"))
    assert reasons_after(bot, *DROP) == (name.value,)
    bot.process(Condition(name, None))
    assert reasons_after(bot, (5, 99.0), (6, 98.0)) == ()


def test_a_parked_symbol_is_not_bought() -> None:
    """Parking holds for its symbol alone."""
    bot = trading()
    bot.process(Parked(S, "halted"))
    assert reasons_after(bot, *DROP) == ("parked",)
    feed(bot, *DROP, symbol="ETH/USDT")
    assert "ETH/USDT" in bot.portfolio.orders


def test_every_reason_that_holds_is_listed_in_order() -> None:
    """A blocked decision hides nothing."""
    bot = trading(POSITION_SIZE_QUOTE=90, PAPER_START_QUOTE=50)
    bot.process(Condition(ConditionName.KILLED, "operator"))
    assert reasons_after(bot, (0, 100.0), (1, 98.0, 97.0, 98.4, 10.0)) == (
        "killed",
        "spread",
        "away",
        "volume",
        "budget",
    )


def test_a_held_symbol_is_not_bought_twice() -> None:
    """An open order or a position counts as held."""
    bot = trading(DEBOUNCE_S=0, PAPER_LATENCY_MS=60_000)
    assert reasons_after(bot, *DROP) == ()
    assert reasons_after(bot, (2, 99.0), (3, 98.0)) == ("held",)


def test_positions_of_all_symbols_count_together() -> None:
    """MAX_CONCURRENT_POSITIONS and ENTRY_BURST_MAX look across symbols."""
    bot = trading(MAX_CONCURRENT_POSITIONS=2, ENTRY_BURST_MAX=9)
    for symbol in ("A/USDT", "B/USDT"):
        feed(bot, *DROP, symbol=symbol)
    assert reasons_after(bot, *DROP) == ("max_positions",)
    bot = trading(MAX_CONCURRENT_POSITIONS=9)
    for symbol in ("A/USDT", "B/USDT"):
        feed(bot, *DROP, symbol=symbol)
    assert reasons_after(bot, *DROP) == ("burst",)
    assert reasons_after(bot, (59, 99.0), (61, 98.0)) == ()


def test_cash_is_reserved_for_open_buys() -> None:
    """Two decisions do not spend the same money."""
    bot = trading(PAPER_START_QUOTE=50, ENTRY_BURST_MAX=9)
    feed(bot, *DROP, symbol="A/USDT")
    assert reasons_after(bot, *DROP) == ("budget",)


def lose(bot: Engine, start: float, symbol: str = S) -> None:
    """Buy and sell at a loss within 20 seconds."""
    feed(
        bot,
        (start, 100.0),
        (start + 5, 98.0),
        (start + 10, 98.0),
        (start + 12, 96.0),
        (start + 14, 96.0),
        symbol=symbol,
    )


def test_after_an_exit_a_symbol_cools_down() -> None:
    """COOLDOWN_MIN counts from the exit's fill."""
    bot = trading(MAX_LOSSES_IN_ROW=9)
    lose(bot, 0)
    assert reasons_after(bot, (20, 98.0), (913.9, 96.0)) == ("cooldown",)
    assert reasons_after(bot, (913.95, 98.0), (914, 94.0), (917, 94.0)) == ()


def test_losses_in_a_row_pause_entries_for_an_hour() -> None:
    """Every symbol waits; a win, or an hour, ends it."""
    bot = trading(MAX_LOSSES_IN_ROW=2, ENTRY_BURST_MAX=99)
    lose(bot, 0, "A/USDT")
    lose(bot, 20, "B/USDT")
    assert bot.portfolio.account.losses_in_row == 2
    assert reasons_after(bot, (60, 100.0), (61, 98.0)) == ("losses_in_row",)
    assert reasons_after(bot, (3633, 100.0), (3634, 98.0)) == ()


def test_the_days_losses_are_measured_against_the_days_first_equity() -> None:
    """MAX_DAILY_LOSS_PCT of the equity at the day's first tick; a new day begins at nothing."""
    bot = trading(MAX_DAILY_LOSS_PCT=0.05, MAX_LOSSES_IN_ROW=9)
    lose(bot, 0, "A/USDT")
    account = bot.portfolio.account
    assert account.day_equity == 1000
    assert account.day_losses > 0.5
    assert reasons_after(bot, (60, 100.0), (61, 98.0)) == ("daily_loss",)
    assert reasons_after(bot, (DAY, 100.0), (DAY + 1, 98.0)) == ()
    assert account.day_losses == 0
    assert account.day_equity == account.cash


def test_a_days_equity_values_positions_at_the_last_price_before_a_due_fill() -> None:
    """The first tick of a day turns it before anything else, that tick's price included."""
    bot = trading(TRADE_TTL_MIN=1e6)
    feed(bot, (DAY - 10, 100.0), (DAY - 9, 98.0), (DAY - 8, 98.0), (DAY - 1, 97.0))
    account, position = bot.portfolio.account, bot.portfolio.positions[S]
    cash = account.cash
    feed(bot, (DAY, 97.5))
    assert account.day_equity == cash + position.qty * 97.5
    assert account.cash > cash


def test_buys_filled_today_are_counted() -> None:
    """MAX_TRADES_PER_DAY holds until midnight UTC."""
    bot = trading(MAX_TRADES_PER_DAY=1)
    lose(bot, 0, "A/USDT")
    assert reasons_after(bot, (70, 100.0), (71, 98.0)) == ("trades_per_day",)
    assert reasons_after(bot, (DAY, 100.0), (DAY + 1, 98.0)) == ()


def test_every_input_takes_the_next_number_and_outputs_name_theirs() -> None:
    """Ticks and control inputs share one count; a tick without an answer has one too."""
    bot = engine()
    bot.process(ClockStep(5000))
    assert bot.process(Ticker(S, T, 100.0))[0].cause == 2
    bot.process(Condition(ConditionName.KILLED, "x"))
    outputs = bot.process(Ticker(S, T + 1000, 98.0))
    assert [(output.cause, output.k) for output in outputs] == [(4, 0), (4, 1)]
    assert isinstance(outputs[1], WindowMoved)


def test_derived_outputs_change_no_number() -> None:
    """Who asks for anchors and windows sees the same decisions under the same numbers."""
    fast, full = engine(), engine()
    ticks = [Ticker(S, T + i * 1000, 100.0 - i * 0.7) for i in range(9)]
    plain = [to_record(output) for ticker in ticks for output in fast.tick(ticker)]
    derived = [to_record(output) for ticker in ticks for output in full.process(ticker)]
    assert plain == [record for record in derived if record["type"] not in ("anchor", "window")]
    assert fast.seq == full.seq


def test_a_checkpoint_is_a_copy() -> None:
    """What an engine does afterwards changes no checkpoint taken before."""
    bot = trading()
    feed(bot, *DROP)
    checkpoint = bot.checkpoint()
    before = to_record(checkpoint)  # type: ignore[arg-type]
    feed(bot, (2, 98.0), (3, 90.0), (4, 90.0))
    assert to_record(checkpoint) == before  # type: ignore[arg-type]


def test_a_clamp_made_tighter_acts_at_the_next_tick_whatever_comes_between() -> None:
    """Neither a rejected ticker nor a restore lets an anchor escape the settings in force."""
    for between in ("nothing", "duplicate", "restore"):
        bot = engine()
        bot.load_anchors({S: SavedAnchor(100.4, T - 1000)}, T)
        bot.process(Ticker(S, T, 100.0))
        bot.process(SettingsChanged(make_settings({"ANCHOR_CLAMP_MAX_ABOVE_PEAK_PCT": 0})))
        if between == "duplicate":
            bot.process(Ticker(S, T, 100.0))
        elif between == "restore":
            checkpoint = bot.checkpoint_record()
            bot = engine()
            bot.restore(checkpoint)
        bot.process(Ticker(S, T + 1000, 99.9))
        anchor = bot.states[S].anchor
        assert anchor is not None
        assert anchor.price == 100.0, between


def test_a_rejected_ticker_moves_no_anchor() -> None:
    """An anchor change is told once, however often the ticker that made it is repeated."""
    bot = engine()
    bot.process(Ticker(S, T, 100.0))
    for _ in range(12):
        bot.process(Ticker(S, T, 100.0))
    moved = bot.process(Ticker(S, T + 1000, 101.0))
    assert [type(output) for output in moved] == [AnchorMoved, WindowMoved]
    for _ in range(3):
        assert [type(output) for output in bot.process(Ticker(S, T + 1000, 101.0))] == [Rejected]


def test_a_fill_and_a_raise_on_one_tick_are_two_changes() -> None:
    """Each change of an anchor has its record."""
    bot = trading()
    for ticker in (Ticker(S, T, 100.0), Ticker(S, T + 1000, 98.0)):
        bot.process(ticker)
    outputs = bot.process(Ticker(S, T + 2000, 98.0, 89.0, 90.0))
    assert [o.cause_word for o in outputs if isinstance(o, AnchorMoved)] == ["fill", "raised"]
    assert [o.k for o in outputs] == list(range(len(outputs)))


@pytest.mark.parametrize("name", [name for name, s in registry().items() if s.engine and s.kind in ("int", "float")])
def test_no_extreme_of_a_setting_breaks_the_engine(name: str) -> None:
    """The least and the largest value that a setting allows run, checkpoint and come back."""
    setting = registry()[name]
    least = setting.ge if setting.ge is not None else (setting.gt or 0.0) + 1e-9
    most = setting.le if setting.le is not None else (setting.lt - 1e-9 if setting.lt is not None else 1e300)
    for value in (least, most):
        if setting.choices:
            continue
        extreme = {"GLOBAL_TRADING": True, "DROP_TRIGGER_VALUE": 0.99, name: value}
        if name == "POSITION_SIZE_QUOTE":
            extreme |= {"MAX_ORDER_QUOTE": 1e300, "MAX_SYMBOL_QUOTE": 1e300, "MAX_EXPOSURE_QUOTE": 1e300}
        bot = engine(**extreme)
        for i, price in enumerate((100.0, 98.0, 97.0, 99.0, 96.0, 90.0, 100.0, 95.0)):
            bot.process(Ticker(S, T + i * 5000, price, price * 0.999, price * 1.001, 1e6))
        again = engine()
        again.restore(orjson.loads(orjson.dumps(bot.checkpoint_record())))
        assert again.checkpoint_record() == bot.checkpoint_record()


def test_an_amount_step_that_is_none_is_refused() -> None:
    """A step of 0 would divide by it at the first fill."""
    with pytest.raises(ValueError, match="amount step"):
        Engine(make_settings({}), {S: 0.0})


def test_a_symbol_cools_down_in_its_own_time() -> None:
    """Another symbol whose clock is ahead shortens no cooldown: rules of one symbol use that symbol's ticks."""
    bot = trading(MAX_LOSSES_IN_ROW=9)
    lose(bot, 0)
    feed(bot, (2000, 50.0), symbol="ETH/USDT")
    assert bot.now_ms == T + 2_000_000
    assert reasons_after(bot, (60, 100.0), (61, 98.0)) == ("cooldown",)
