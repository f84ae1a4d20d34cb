"""What a proof makes of inputs that are not there: not recorded and said so, or missing."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import LIMIT_S
from tests.recording import LIVELY, Recorded, T, failing
from tradingbot.config import make_settings
from tradingbot.engine.events import Condition, ConditionName
from tradingbot.io import sealing
from tradingbot.io.jsonl import decode, encode
from tradingbot.io.segments import list_segments
from tradingbot.io.streams import FOLDERS, JOURNAL, Stream, output_record
from tradingbot.market.ticker import Ticker
from tradingbot.ops.record.proof import SessionProof
from tradingbot.ops.record.prove import Proof, prove
from tradingbot.services.housekeeping import Housekeeper

Lines = list[bytes]


def lines_of(state: Path, stream: Stream, change: Callable[[Lines], Lines], place: int = 0) -> None:
    """Change the lines of one segment of a stream."""
    path = list_segments(state / FOLDERS[stream])[place].path
    path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))


def only(proof: Proof) -> SessionProof:
    (session,) = proof.sessions
    return session


def minutes(run: Recorded, count: int) -> None:
    """Let so many minutes pass, with a tick a second."""
    for _ in range(count * 60):
        run.tick(step_ms=1000)
        run.flush()
        run.recorder.look()


def test_a_session_with_checkpoints_is_equal(tmp_path: Path) -> None:
    """The engine is held against every one of them, too."""
    run = Recorded(tmp_path)
    minutes(run, 40)
    run.end()
    session = only(prove(tmp_path))
    assert (session.verdict, session.inputs, session.unrecorded) == ("equal", 2400, [])
    assert session.outputs > 100


def test_an_engine_that_is_not_the_one_recorded_differs(tmp_path: Path) -> None:
    """A checkpoint with another cash, right checksum and all: exit 1, and which member it is."""
    run = Recorded(tmp_path)
    minutes(run, 20)
    run.end()

    def change(lines: Lines) -> Lines:
        records = [decode(line) for line in lines]
        (record,) = (record for record in records if record["type"] == "checkpoint")
        record["checkpoint"]["account"]["cash"] += 1e-9
        return [encode(record) for record in records]

    lines_of(tmp_path, JOURNAL, change)
    proof = prove(tmp_path)
    divergence = only(proof).divergence
    assert proof.exit_code == 1
    assert divergence is not None
    assert divergence.found is not None
    assert (divergence.seq, divergence.found["checkpoint"]) == (900, "account.cash")


@pytest.mark.parametrize("series", [("BTC_USDT",), ("BTC_USDT", "ETH_USDT")])
def test_ticks_lost_to_a_disk_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, series: Any) -> None:
    """Comparing goes on from the next checkpoint; gap records tell how many are missing, and one more is too many."""
    switch = failing(monkeypatch, *series)
    run = Recorded(tmp_path)
    minutes(run, 3)
    switch["on"] = True
    minutes(run, 2)
    switch["on"] = False
    minutes(run, 30)
    run.end()
    proof = prove(tmp_path)
    session = only(proof)
    assert (proof.exit_code, session.verdict) == (0, "equal")
    stretches = session.unrecorded
    assert {why for _, _, why in stretches} == {"lost to a disk that could not be written"}
    assert stretches[0][0] in (181, 182)
    assert 300 <= stretches[-1][1] < 310
    assert session.inputs == 2100 - sum(last - first + 1 for first, last, _ in stretches)

    def cut(lines: Lines) -> Lines:
        return [line for line in lines if decode(line).get("seq") not in (401, 402)]

    lines_of(tmp_path, Stream.TICKS, cut, 0)
    proof = prove(tmp_path)
    assert (proof.exit_code, only(proof).missing in (401, 402)) == (2, True)


def test_a_tick_missing_beside_those_that_were_lost_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the very stretch in which a disk failed: the gap record does not reach for it."""
    switch = failing(monkeypatch, "BTC_USDT")
    run = Recorded(tmp_path)
    minutes(run, 2)
    switch["on"] = True
    minutes(run, 2)
    switch["on"] = False
    minutes(run, 3)
    run.end()
    assert prove(tmp_path).exit_code == 0
    lines_of(tmp_path, Stream.TICKS, lambda lines: [x for x in lines if decode(x).get("seq") != 181], 1)
    assert prove(tmp_path).exit_code == 2


@pytest.mark.parametrize(("flag", "why"), [(False, "FEATURE_PERSIST_STREAMS off"), (True, "disk low")])
def test_a_stretch_without_recording_says_why(tmp_path: Path, flag: bool, why: str) -> None:
    """Switched off, or for want of room; what stands around it is compared."""
    run = Recorded(tmp_path)
    minutes(run, 2)
    if not flag:
        run.adopt(make_settings(LIVELY | {"FEATURE_PERSIST_STREAMS": False}))
    run.recorder.snapshots_ms = None
    minutes(run, 20)
    if not flag:
        run.adopt(make_settings(LIVELY))
    run.recorder.snapshots_ms = 500
    minutes(run, 20)
    run.end()
    proof = prove(tmp_path)
    session = only(proof)
    assert proof.exit_code == 0, proof.text()
    assert [stretch[2] for stretch in session.unrecorded] == [why]
    assert session.inputs > 60 * 21
    assert f"not recorded: {session.unrecorded[0][0]} to {session.unrecorded[0][1]}, {why}" in proof.text()


def test_nothing_but_stretches_without_recording_cannot_be_proved(tmp_path: Path) -> None:
    """Exit 2: nothing was compared."""
    run = Recorded(tmp_path)
    run.recorder.snapshots_ms = None
    minutes(run, 2)
    run.end()
    proof = prove(tmp_path)
    assert (proof.exit_code, only(proof).verdict) == (2, "nothing compared")


def test_deleted_segments_are_named_as_such(tmp_path: Path) -> None:
    """Retention says what it deletes, also of an earlier session; a segment that just vanished is missing."""
    run = Recorded(tmp_path, "b", max_bytes=60_000)
    minutes(run, 25)
    run.end()
    folder = tmp_path / FOLDERS[Stream.TICKS]
    for segment in list_segments(folder):
        sealing.seal(segment.path)
    again = Recorded(tmp_path, "a", now_ms=run.now_ms)
    segments = list_segments(folder)
    total = sum(path.stat().st_size for path in folder.iterdir())
    kept = sum(path.stat().st_size for place in (Stream.SNAPSHOTS, Stream.WINDOWS, Stream.ANCHORS)
               for path in (tmp_path / FOLDERS[place]).iterdir())  # fmt: skip
    limit = (total * 0.7 + kept) / 1e9
    keeper = Housekeeper(tmp_path, lambda: make_settings({"STREAMS_MAX_GB": limit}))
    keeper.look()
    again.recorder.look(keeper)
    minutes(again, 2)
    again.end()
    before = {segment.path.name for segment in segments}
    keeper.begin()
    end = time.monotonic() + LIMIT_S
    while time.monotonic() < end and before <= {segment.path.name for segment in list_segments(folder)}:
        time.sleep(0.02)
    keeper.close(LIMIT_S)
    gone = before - {segment.path.name for segment in list_segments(folder)}
    assert 0 < len(gone) < len(before)
    proof = prove(tmp_path)
    first, second = proof.sessions
    assert (first.sid, second.sid) == ("b", "a"), "in the order of the journal, whatever their names"
    assert proof.exit_code == 0, proof.text()
    assert {why for _, _, why in first.unrecorded} == {"segments deleted"}
    assert first.inputs > 0
    assert (second.verdict, second.unrecorded) == ("equal", [])
    lines_of(tmp_path, JOURNAL, lambda lines: [line for line in lines if decode(line)["type"] != "deleted"], -1)
    assert prove(tmp_path).exit_code == 2


def test_a_kill_between_the_parts_of_a_checkpoint_is_no_checkpoint(tmp_path: Path) -> None:
    """What is incomplete is passed over, and nothing is compared until a whole one."""
    symbols = tuple(f"S{number}/USDT" for number in range(700))
    run = Recorded(tmp_path, symbols=symbols)
    run.tick(5000, step_ms=10)
    run.recorder.checkpoint()
    run.tick(100, step_ms=10)
    run.end()
    assert only(prove(tmp_path)).inputs == 5100

    def cut(lines: Lines) -> Lines:
        """Take away the last part of the checkpoint in the middle, and a tick before it."""
        kinds = [decode(line)["type"] for line in lines]
        head = kinds.index("checkpoint")
        last = next(place for place in range(head + 1, len(kinds)) if kinds[place] != "checkpoint_part") - 1
        assert last > head
        return [line for place, line in enumerate(lines) if place != last]

    lines_of(tmp_path, JOURNAL, cut)
    assert only(prove(tmp_path)).inputs == 5100, "the session's start is enough"
    lines_of(tmp_path, Stream.TICKS, lambda lines: lines[:-2] + lines[-1:])
    session = only(prove(tmp_path))
    assert session.missing is not None
    assert session.inputs == session.missing - 1, "an incomplete checkpoint is none to go on from"


def test_what_a_later_start_caught_up_is_proved_as_it_decided(tmp_path: Path) -> None:
    """A trigger that the journal did not hold is journalled as blocked by the restart, under its old numbers."""
    run = Recorded(tmp_path, "a")
    run.tick(300)
    before = run.engine.checkpoint()
    while True:  # up to a trigger whose decision is not written any more
        run.now_ms += 250
        ticker = Ticker("BTC/USDT", run.now_ms, 99.0 - run.now_ms % 997 / 500)
        outputs = run.engine.process(ticker)
        if any(type(o).__struct_config__.tag == "decision" for o in outputs):
            break
        run.recorder.take(ticker, outputs)
        before = run.engine.checkpoint()
    run.recorder.take(ticker, ())
    run.writer.close()
    proof = prove(tmp_path)
    assert (proof.exit_code, only(proof).inputs) == (0, run.engine.seq), "the outputs of the last input may be absent"

    run.engine.restore(before)
    run.engine.conditions["restart"] = "caught up"
    outputs = run.engine.tick(ticker)
    del run.engine.conditions["restart"]
    (decision,) = (o for o in outputs if type(o).__struct_config__.tag == "decision")
    assert "restart" in decision.reasons  # type: ignore[union-attr]
    again = Recorded(tmp_path, "b", now_ms=run.now_ms)
    again.recorder.end()
    again.writer.close()
    caught_up = encode(output_record("a", decision))

    def insert(lines: Lines) -> Lines:
        start = next(place for place, line in enumerate(lines) if decode(line)["sid"] == "b")
        return [*lines[:start], caught_up, *lines[start:]]

    lines_of(tmp_path, JOURNAL, insert)
    proof = prove(tmp_path)
    assert proof.exit_code == 0, proof.text()
    assert (proof.sessions[0].verdict, proof.sessions[0].inputs) == ("equal", run.engine.seq)
    caught_up = encode(output_record("a", decision) | {"reasons": ["cooldown"]})
    lines_of(tmp_path, JOURNAL, lambda lines: [x for x in lines if decode(x).get("cause") != run.engine.seq])
    lines_of(tmp_path, JOURNAL, insert)
    assert prove(tmp_path).exit_code == 1


def test_of_a_session_without_an_end_only_the_last_answers_may_be_absent(tmp_path: Path) -> None:
    """Those of its highest number; one more input behind, and the decision is missing: differs."""
    run = Recorded(tmp_path)
    while not run.journal("decision"):
        run.tick()
    run.writer.close()
    lines_of(tmp_path, JOURNAL, lambda lines: [line for line in lines if decode(line)["type"] == "session_start"])
    assert prove(tmp_path).exit_code == 0
    run.tick()
    run.writer.close()
    lines_of(tmp_path, JOURNAL, lambda lines: [line for line in lines if decode(line)["type"] == "session_start"])
    assert prove(tmp_path).exit_code == 1


def test_a_session_without_an_end_is_compared_up_to_what_is_missing(tmp_path: Path) -> None:
    """Killed with some series written and others not: as far as it goes it is equal, and where it ends is said."""
    run = Recorded(tmp_path)
    minutes(run, 5)
    run.writer.close()
    lines_of(tmp_path, Stream.TICKS, lambda lines: lines[:-3])
    proof = prove(tmp_path)
    session = only(proof)
    assert (proof.exit_code, session.verdict, session.ended) == (0, "equal", False)
    assert session.cut == session.inputs + 1
    assert 290 < session.inputs < 300
    assert f"cut off before {session.cut}" in proof.text()


def test_a_hole_in_the_middle_of_a_session_without_an_end_is_missing(tmp_path: Path) -> None:
    """What was recorded after it, behind a checkpoint, shows that it is no torn end."""
    run = Recorded(tmp_path)
    minutes(run, 20)
    run.writer.close()
    lines_of(tmp_path, Stream.TICKS, lambda lines: lines[:100] + lines[101:])
    proof = prove(tmp_path)
    assert (proof.exit_code, only(proof).missing in (201, 202)) == (2, True)


def test_a_running_bot_can_be_proved(tmp_path: Path) -> None:
    """Lines half written at the end of journal and ticks are no damage; in the middle of a series they are."""
    run = Recorded(tmp_path)
    minutes(run, 5)
    run.flush()
    for stream in (JOURNAL, Stream.TICKS):
        lines_of(tmp_path, stream, lambda lines: [*lines, lines[-1][:50]])
    proof = prove(tmp_path)
    assert (proof.exit_code, proof.report.damaged, only(proof).inputs) == (0, 0, 300), proof.text()
    assert prove(tmp_path, last_min=2).exit_code == 0
    lines_of(tmp_path, Stream.TICKS, lambda lines: [lines[0][:50] + b"\n", *lines[1:]])
    assert prove(tmp_path).exit_code == 1


def test_a_tick_twice_is_out_of_order(tmp_path: Path) -> None:
    """Right checksum and all: exit 1."""
    run = Recorded(tmp_path)
    minutes(run, 1)
    run.end()
    lines_of(tmp_path, Stream.TICKS, lambda lines: [*lines[:10], lines[9], *lines[10:]])
    proof = prove(tmp_path)
    assert proof.exit_code == 1
    assert "ticks out of their order" in proof.text()


def test_ticks_of_a_session_that_the_journal_does_not_know(tmp_path: Path) -> None:
    """They are counted, and nobody can tell; those of other sessions are compared all the same."""
    for sid in ("a", "b", "c"):
        run = Recorded(tmp_path, sid)
        minutes(run, 1)
        run.end()
    lines_of(tmp_path, JOURNAL, lambda lines: [line for line in lines if decode(line)["sid"] != "b"])
    proof = prove(tmp_path)
    assert proof.exit_code == 2
    assert [(s.sid, s.verdict, s.inputs) for s in proof.sessions] == [("a", "equal", 60), ("c", "equal", 60)]
    assert proof.strangers == {"b": 60}


def test_two_sessions_of_one_name_are_two(tmp_path: Path) -> None:
    """Virtual time gives every session the same name."""
    now_ms = T
    for _ in range(2):
        run = Recorded(tmp_path, "virtual", now_ms=now_ms)
        minutes(run, 3)
        run.end()
        now_ms = run.now_ms
    proof = prove(tmp_path)
    assert [(s.verdict, s.inputs) for s in proof.sessions] == [("equal", 180)] * 2, proof.text()
    assert proof.exit_code == 0


@pytest.mark.parametrize("sealed", [False, True])
def test_the_last_minutes_begin_at_a_checkpoint(tmp_path: Path, sealed: bool) -> None:
    """Fewer records are read; what differs before them is not looked at, what differs in them is found."""
    now_ms = T
    for sid in ("a", "b"):
        run = Recorded(tmp_path, sid, now_ms=now_ms, max_bytes=200_000)
        minutes(run, 100)
        run.end()
        now_ms = run.now_ms
    if sealed:
        for stream in (Stream.TICKS, JOURNAL):
            for segment in list_segments(tmp_path / FOLDERS[stream])[:-1]:
                sealing.seal(segment.path)
    whole, part = prove(tmp_path), prove(tmp_path, last_min=20)
    session = only(part)
    assert (whole.exit_code, part.exit_code) == (0, 0), part.text()
    assert (session.sid, session.verdict, session.unrecorded, session.missing) == ("b", "equal", [], None)
    assert session.inputs == 25 * 60, "from the last checkpoint before them"
    assert part.report.records < whole.report.records / 2
    both = prove(tmp_path, last_min=110)
    assert [s.inputs for s in both.sessions] == [10 * 60, 100 * 60]
    everything = prove(tmp_path, last_min=1e6)
    assert [s.inputs for s in everything.sessions] == [100 * 60, 100 * 60]


def test_where_the_last_minutes_differ_is_found(tmp_path: Path) -> None:
    """And what differs before them is not looked at."""
    run = Recorded(tmp_path)
    minutes(run, 60)
    run.end()

    def change(seq: int) -> Callable[[Lines], Lines]:
        def changed(line: bytes) -> bytes:
            record = decode(line)
            return encode(record | {"last": record["last"] * 0.97}) if record["seq"] == seq else line

        return lambda lines: list(map(changed, lines))

    lines_of(tmp_path, Stream.TICKS, change(400), 0)
    assert prove(tmp_path).exit_code == 1
    assert prove(tmp_path, last_min=10).exit_code == 0
    lines_of(tmp_path, Stream.TICKS, change(3000), 0)
    assert prove(tmp_path, last_min=10).exit_code == 1


@pytest.mark.parametrize("seed", range(12))
def test_whatever_a_disk_loses_is_explained_and_nothing_else_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Series fail and heal, recording stops and goes on, ticks are rejected: exit 0; one line less: exit 2."""
    rng = random.Random(seed)
    symbols = tuple(f"S{number}/USDT" for number in range(rng.choice((1, 3, 12))))
    names = [symbol.replace("/", "_") for symbol in symbols]
    switch = failing(monkeypatch, *names[: rng.randint(1, len(names))])
    run = Recorded(tmp_path, symbols=symbols, max_bytes=rng.choice((20_000, 50_000_000)))
    for _ in range(40):
        switch["on"] = rng.random() < 0.2
        if rng.random() < 0.1:
            run.recorder.snapshots_ms = 500 if run.recorder.snapshots_ms is None else None
        if rng.random() < 0.1:
            event = Condition(ConditionName.KILLED, "test" if rng.random() < 0.5 else None)
            run.recorder.control(event, run.engine.process(event))
        for _ in range(rng.randint(1, 120)):
            run.tick(step_ms=rng.choice((0, 1, 500, 1000)), last=rng.choice((None,) * 30 + (-1.0,)))
        run.flush()
        for _ in range(3):
            run.now_ms += rng.choice((0, 61_000))
            run.recorder.look()
    switch["on"] = False
    if rng.random() < 0.7:
        run.end()
    else:
        run.writer.close()
    proof = prove(tmp_path)
    session = only(proof)
    assert proof.exit_code == 0 or session.inputs == 0, proof.text()
    if not session.ended:
        return
    segments = list_segments(tmp_path / FOLDERS[Stream.TICKS])
    place = rng.randrange(len(segments))
    ticks = [d for line in segments[place].path.read_bytes().splitlines() if "seq" in (d := decode(line))]
    seq = rng.choice(ticks)["seq"]
    lines_of(tmp_path, Stream.TICKS, lambda lines: [x for x in lines if decode(x).get("seq") != seq], place)
    assert prove(tmp_path).exit_code == 2


def test_ticks_come_in_the_order_in_which_they_were_seen(tmp_path: Path) -> None:
    """Of many series of very different lengths, over many segments and blocks."""
    from tradingbot.io.jsonl import ReadReport
    from tradingbot.io.tick_files import TickFiles

    rng = random.Random(3)
    symbols = [f"S{number}/USDT" for number in range(40)]
    run = Recorded(tmp_path, max_bytes=100_000)
    for _ in range(20_000):
        run.symbols = (symbols[min(int(rng.expovariate(0.2)), 39)],)
        run.tick(step_ms=10)
    run.end()
    for segment in list_segments(tmp_path / FOLDERS[Stream.TICKS])[::2]:
        sealing.seal(segment.path)
    report = ReadReport()
    ticks = TickFiles(tmp_path, ["s"], report)
    numbers = [record.seq for record in itertools.chain.from_iterable(ticks.session("s"))]
    assert numbers == list(range(1, 20_001))
    assert (report.records, report.damaged) == (20_000, 0)
