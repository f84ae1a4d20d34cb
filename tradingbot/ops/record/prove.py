"""Prove: the recorded inputs of each session go through the engine again, and must give the recorded outputs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import orjson

from tradingbot.config import make_settings
from tradingbot.engine.engine import Engine
from tradingbot.engine.events import ConditionName, Output, Rejected
from tradingbot.io.jsonl import encode
from tradingbot.io.streams import input_of, output_record
from tradingbot.io.tick_files import TickRecord
from tradingbot.ops.record.inputs import (
    CAUGHT_UP,
    INPUTS,
    NEVER,
    OFF_WHYS,
    OUTPUTS,
    IsOver,
    Numbered,
    Progress,
    Record,
    RecordedInputs,
    rare_collections,
)
from tradingbot.ops.record.proof import Absences, Divergence, Explanation, Proof, SessionProof, first_difference

__all__ = ["Divergence", "Proof", "SessionProof", "prove"]

LOST, DELETED = "lost to a disk that could not be written", "segments deleted"


def prove(
    state_dir: Path, progress: Progress | None = None, last_min: float | None = None, is_over: IsOver = lambda: False
) -> Proof:
    """Run all that is recorded under a state directory through the engine again; raise UsageError where nothing is.

    With `last_min` that is only the last so many minutes, from the last checkpoint before them on. A bot may go on
    writing meanwhile. Cost and time follow the records; memory does not, but with the minutes of the journal. Once
    `is_over` says so it ends with what was compared by then.
    """
    with rare_collections():
        return _prove(state_dir, progress, last_min, is_over)


def _prove(state_dir: Path, progress: Progress | None, last_min: float | None, is_over: IsOver) -> Proof:
    proof = Proof()
    recorded = RecordedInputs(state_dir, proof.report, last_min)
    runs: list[_Run] = []
    deleted: list[tuple[str, Explanation]] = []
    for session in recorded.sessions():
        run = _Run(session.sid, session.journal, deleted, session.begins)
        runs.append(run)
        for batch in session.ticks:
            run.ticks(batch)
            if progress is not None:
                progress("proving", proof.report.records, 0)
            if is_over():
                recorded.forgive_torn_end()
                proof.sessions, proof.is_whole = [each.proof for each in runs], False
                return proof
        run.end()
    ticks = recorded.ticks
    ticks.rest()
    recorded.forgive_torn_end()
    proof.strangers, proof.disordered = ticks.strangers, ticks.disordered
    for run in runs:
        gaps = [Explanation(LOST, gap.after, gap.before, gap.missing) for gap in ticks.gaps.get(run.proof.sid, ())]
        run.explain([*gaps, *(explanation for sid, explanation in deleted if sid == run.proof.sid)])
        proof.sessions.append(run.proof)
    return proof


class _Run:
    """Take the records of one session in order, and hold the engine's answers against those recorded.

    `begins` is the number that a session is taken up behind, None where its start is at hand. What the journal tells of
    deleted segments goes to `deleted`, for it may be about any session.
    """

    def __init__(
        self, sid: str, journal: Iterator[Record], deleted: list[tuple[str, Explanation]], begins: int | None
    ) -> None:
        self.proof = SessionProof(sid)
        self._journal, self._deleted = Numbered(journal), deleted
        self._engine: Engine | None = None
        self._base = begins or 0  # what the engine was restored at
        self._due_next = self._base + 1  # the next number
        self._unmet: list[Record] = []  # made by the last input, and not found in the record
        self._absences: list[Absences] = []
        self._open: Absences | None = Absences(self._due_next)
        self._ticks = 0  # compared so far
        self._is_off = False
        self._gap: Explanation | None = None  # of the journal, right before the record that comes next

    def ticks(self, batch: list[TickRecord]) -> None:
        """Take in the next ticks."""
        place, count = 0, len(batch)
        while place < count:
            if self._engine is not None and not self._unmet:
                place = self._run_plain(self._engine, batch, place)
            if place < count:
                tick = batch[place]
                self._until(tick.seq)
                self._input(tick.seq, tick, {})
                place += 1

    def _run_plain(self, engine: Engine, batch: list[TickRecord], place: int) -> int:
        """Run ticks that nothing answers, as far as they go; return the place of the first that was not run."""
        tick, began, seq, at = engine.tick, self._due_next, self._due_next, self._journal.at
        for record in batch[place:] if place else batch:
            if record.seq != seq or seq >= at:
                break
            outputs = tick(record)
            seq += 1
            if outputs:
                break
        else:
            outputs = ()
        self._due_next = seq
        self._ticks += seq - began
        self.proof.inputs += seq - began
        if seq > began and outputs:
            self._meet(seq - 1, outputs, [])
        return place + seq - began

    def end(self) -> None:
        """Take in what the journal holds behind the last tick."""
        self._until(NEVER)
        highest = self._due_next - 1
        if self._unmet and (self.proof.ended or self._unmet[0]["cause"] != highest):
            self._settle()
        if self._open is not None:
            self._open.last = max(highest, self._open.first)
            self._open.compared = self._ticks
            if highest >= self._open.first:
                self._absences.append(self._open)

    def explain(self, explanations: list[Explanation]) -> None:
        """Name the stretches that could not be compared, and the first number that is missing for no known reason."""
        proof = self.proof
        for stretch in self._absences if proof.divergence is None else ():
            unexplained = stretch.explain(explanations)
            if unexplained is None:
                proof.unrecorded.append((stretch.first, stretch.last, " and ".join(stretch.whys) or "no checkpoint"))
            elif not proof.ended and stretch.compared == self._ticks:
                proof.cut = unexplained if proof.cut is None else proof.cut
            elif proof.missing is None:
                proof.missing = unexplained

    def _until(self, limit: int) -> None:
        """Take in what the journal holds before a number."""
        for seq, record in self._journal.before(limit):
            kind = record.get("type")
            if kind in INPUTS:
                self._input(seq, None, record)
            elif kind not in OUTPUTS:
                self._mark(seq, record)
            elif self._engine is not None and self._base < seq <= self._engine.seq:
                self._diverge(seq, record, None)

    def _input(self, seq: int, tick: TickRecord | None, record: Record) -> None:
        """Take in an input, with all that the journal holds of its number."""
        answers, marks = self._journal.of(seq)
        if seq > self._due_next:
            self._miss(seq - 1)
        elif seq < self._due_next and self._engine is not None and seq > self._base:
            self._diverge(seq, record or {"seq": seq, "symbol": tick and tick.symbol}, None)  # there twice
        self._due_next = max(self._due_next, seq + 1)
        self._settle()
        if self._engine is not None and seq == self._engine.seq + 1:
            self._run(self._engine, seq, tick, record, answers)
        for mark in marks:
            self._mark(seq, mark)

    def _run(self, engine: Engine, seq: int, tick: TickRecord | None, record: Record, answers: list[Record]) -> None:
        """Run an input and hold its answers against those found."""
        name = ConditionName.RESTART.value
        made_up_for = name not in engine.conditions and any(name in found.get("reasons", ()) for found in answers)
        if made_up_for:
            engine.conditions[name] = CAUGHT_UP
        try:
            outputs = engine.process(input_of(record)) if tick is None else engine.tick(tick)
        except (ValueError, KeyError):
            self._diverge(seq, record, None)
            return
        if made_up_for:
            del engine.conditions[name]
        self._ticks += tick is not None
        self.proof.inputs += 1
        if engine.seq != seq:  # only counted
            self._diverge(seq, record or {"seq": seq, "symbol": tick and tick.symbol}, None)
        elif record.get("type") == "rejected":
            first = outputs[0] if outputs else None
            if not isinstance(first, Rejected) or first.reason != record["reason"]:
                self._diverge(seq, record, None if first is None else output_record(self.proof.sid, first))
        else:
            self._meet(seq, outputs, answers)

    def _meet(self, seq: int, outputs: tuple[Output, ...], found: list[Record]) -> None:
        """Hold what was made against what was found."""
        tags = [type(output).__struct_config__.tag for output in outputs]
        if "rejected" in tags:
            self._diverge(seq, None, output_record(self.proof.sid, outputs[0]))
            return
        told = [output for output, tag in zip(outputs, tags, strict=True) if tag in OUTPUTS]
        made = [output_record(self.proof.sid, output) for output in told]
        self.proof.outputs += len(found)
        for one, other in zip(found, made, strict=False):
            if encode(one) != encode(other):
                self._diverge(seq, one, other)
        if len(found) > len(made):
            self._diverge(seq, found[len(made)], None)
        self._unmet = made[len(found) :]

    def _settle(self) -> None:
        """See that nothing was decided that the record does not hold, unless the journal itself has a gap there."""
        unmet, self._unmet = self._unmet, []
        if not unmet:
            return
        seq, gap = unmet[0]["cause"], self._gap
        if gap is not None and gap.after <= seq <= gap.before and gap.count >= len(unmet):
            gap.count -= len(unmet)
        else:
            self._diverge(seq, None, unmet[0])

    def _miss(self, last: int) -> None:
        """Note that numbers are absent up to `last`; nothing behind them can be compared until a checkpoint."""
        self._settle()
        if not self._is_off and last >= self._due_next:
            self._suspend().spans.append((self._due_next, last))
        self._due_next = last + 1

    def _suspend(self) -> Absences:
        self._engine = None
        if self._open is None:
            self._open = Absences(self._due_next)
        return self._open

    def _mark(self, seq: int, record: Record) -> None:
        kind = record.get("type")
        if kind == "gap":
            self._gap = Explanation(LOST, seq, self._journal.at, record["missing"])
            self._deleted.append((self.proof.sid, self._gap))
            return
        if kind == "deleted":
            for sid, (first, last, count) in record["sessions"].items():
                self._deleted.append((sid, Explanation(DELETED, first - 1, last + 1, count)))
        checkpoint = record.get("checkpoint")
        if kind == "session_start":
            self._open = None
            self._due_next = 1 if checkpoint is None else checkpoint["seq"] + 1
        elif seq >= self._due_next:
            if kind == "recording" and record["on"] and self._is_off:
                self._miss(seq - 1)
                self._is_off = False  # the tick that it was written with is recorded
            self._miss(seq)
        self._settle()
        if kind == "session_end":
            self.proof.ended = True
        elif kind == "recording":
            self._is_off = not record["on"]
            if self._is_off:
                why = str(record.get("why", "flag"))
                self._suspend().whys.append(OFF_WHYS.get(why, why))
        if checkpoint is not None and not self._is_off and self.proof.divergence is None:
            self._check(checkpoint)

    def _check(self, checkpoint: Record) -> None:
        """Go on from a checkpoint, or hold the engine against it where it has come as far."""
        seq: int = checkpoint["seq"]
        if self._engine is None:
            self._engine, self._base = Engine(make_settings({})), seq
            self._engine.restore(checkpoint)
            if self._open is not None and self._open.first <= seq:
                self._open.last, self._open.compared = seq, self._ticks
                self._absences.append(self._open)
            self._open = None
            return
        made = orjson.loads(orjson.dumps(self._engine.checkpoint_record()))
        difference = first_difference(checkpoint, made)
        if difference is not None:
            place, found, other = difference
            self._diverge(seq, {"checkpoint": place, "value": found}, {"checkpoint": place, "value": other})

    def _diverge(self, seq: int, found: Record | None, made: Record | None) -> None:
        """Note the first difference; nothing is compared behind it."""
        if self.proof.divergence is None:
            self.proof.divergence = Divergence(seq, found, made)
        self._engine, self._unmet = None, []
