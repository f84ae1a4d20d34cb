"""The warm start: killed at any write, the bot comes back as one that never stopped."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import event as note
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.lives import Death, Killed, Life, Never, essence
from tests.sessions import PAPER_START, SETTINGS, STEPS, Steps, to_inputs
from tradingbot.config import make_settings
from tradingbot.engine.events import Condition, ConditionName, Input
from tradingbot.ops.prove import prove


def inputs_of(steps: Steps, start: float) -> list[Input]:
    """Return what a bot is told; nobody but a start says `restart`."""
    told = to_inputs(steps, start)
    return [e for e in told if not (isinstance(e, Condition) and e.name is ConditionName.RESTART)]


@given(SETTINGS, PAPER_START, STEPS, st.lists(st.integers(0, 60), min_size=1, max_size=4), st.data())
@settings(max_examples=150, phases=[__import__("hypothesis").Phase.generate, __import__("hypothesis").Phase.reuse])
def test_killed_at_any_write_it_comes_back_as_one_that_never_stopped(
    chosen: dict[str, Any], start: float, steps: Steps, deaths: list[int], data: st.DataObject
) -> None:
    """Windows, anchors, triggers, orders, positions, cash: equal, but for ticks not on disk and triggers blocked."""
    config = make_settings({**chosen, "PAPER_START_QUOTE": start})
    inputs = inputs_of(steps, start)
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder)
        never, blocked = Never(config), 0
        for after in [*deaths, None]:
            life = Life(state, config)
            if life.recovered.kind == "warm":
                assert not life.recovered.troubles
                assert essence(life.engine)["symbols"] == essence(never.engine)["symbols"]
                assert essence(life.engine) == essence(never.engine)
            else:
                never = Never(config)
            take = len(inputs) if after is None else data.draw(st.integers(0, len(inputs)))
            told, inputs = inputs[:take], inputs[take:]
            try:
                with Death(10**9 if after is None else after):
                    life.begin()
                    for event in told:
                        life.tell(event)
                    if after is None or data.draw(st.booleans()):
                        life.end()
            except Killed:
                pass
            config = life.settings
            blocked += never.take(life)
            never.dies()
        assert essence(Life(state, config).engine) == essence(never.engine)
        proof = prove(state)
        assert all(session.verdict != "differs" for session in proof.sessions), proof.text()
        assert not proof.report.damaged
        note(f"blocked: {min(blocked, 2)}")
