"""Power loss: a disk in a file whose file system is shut down while a driver writes on it."""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

from tests.crash import machine, memory
from tests.crash.files import KINDS, T0, Kind, read_records
from tests.crash.rows import Outcome, Row
from tradingbot.config import make_settings
from tradingbot.engine.engine import Engine
from tradingbot.errors import UsageError
from tradingbot.io import saved, stream_writer
from tradingbot.io.lines import to_json
from tradingbot.io.sealing import seal
from tradingbot.io.segments import list_segments, names_by_series
from tradingbot.io.streams import FOLDERS, JOURNAL, Stream
from tradingbot.ops.record.prove import prove

SERIES = ("BTC_USDT", "ETH_USDT", "X_USDT")
FSYNC_S = 0.02


def streams(folder: Path, tell: Callable[[object], None], words: list[str]) -> None:
    """Put ticks and journal lines through the writer's thread; tell what of each series is durable."""
    written: dict[str, int] = {}
    durable: dict[str, int] = {}
    append, sync = stream_writer.StreamWriter._append, stream_writer.StreamWriter._sync

    def counting_append(writer: Any, stream: Stream, series: str, ts_ms: int, lines: bytes) -> None:
        append(writer, stream, series, ts_ms, lines)
        written[series] = written.get(series, 0) + lines.count(b"\n")

    def telling_sync(writer: Any) -> None:
        sync(writer)
        if written != durable:
            durable.update(written)
            tell(" ".join(f"{series}={count}" for series, count in durable.items()))

    with (
        patch.object(stream_writer.StreamWriter, "_append", counting_append),
        patch.object(stream_writer.StreamWriter, "_sync", telling_sync),
    ):
        writer = stream_writer.StreamWriter(folder, "s", 3_000, 0.005, FSYNC_S, lambda _: None)
        for place in range(int(words[0])):
            series, seq = SERIES[place % 3], place // 3
            writer.put(Stream.TICKS, series, T0, to_json({"v": 1, "sid": "s", "ts_ms": T0, "seq": seq}))
            if place % 9 == 8:
                line = to_json({"v": 1, "sid": "s", "ts_ms": T0, "seq": place // 9})
                writer.put(JOURNAL, JOURNAL.value, T0, line)
                time.sleep(0.001)
        writer.close()


def check_streams(folder: Path, told: list[str], outcome: Outcome) -> None:
    """See that what was said to be durable of each series is there, from its first record on, without a gap."""
    before = [words for words in told if not words.startswith("late")]
    acknowledged = dict(word.split("=") for word in before[-1].split())
    for series in (*SERIES, JOURNAL.value):
        place = folder / FOLDERS[JOURNAL if series == JOURNAL.value else Stream.TICKS]
        found = [entry["seq"] for entry in read_records(place, outcome, series)]
        outcome.holds(found == list(range(len(found))), f"{series} is {found[:5]}...{found[-5:]}", "gaps")
        least = int(acknowledged.get(series, 0))
        outcome.holds(len(found) >= least, f"{series}: {len(found)} records of {least} durable", "lost")


def bot(folder: Path, tell: Callable[[object], None], words: list[str]) -> None:
    """Live through the series as the bot does, its files written by their own thread; tell each kept checkpoint."""
    save = saved.save_checkpoint

    def telling_save(state_dir: Path, text: bytes, durable: bool) -> None:
        save(state_dir, text, durable)
        tell(int(text[: text.index(b',"checkpoint"')].rpartition(b":")[2]))

    settings = make_settings(memory.SETTINGS | {"STREAM_FLUSH_MS": 5, "STREAM_FSYNC_S": FSYNC_S})
    with patch("tradingbot.services.keeper.save_checkpoint", telling_save):
        life = memory.Life(folder, settings, memory.T0, threaded=True)
        life.begin()
        tell("begun")
        for event in memory.series(int(words[0])):
            life.tell(event)
            time.sleep(0.001)
        life.recording.end()


def check_bot(folder: Path, told: list[str], outcome: Outcome) -> None:
    """See that the checkpoint is there, that a start goes on from it with what was bought, and that it is proved."""
    last = max((int(word) for word in told if word.isdigit()), default=-1)
    disk = memory.read_state(folder, outcome)
    found, troubles = saved.load_checkpoint(folder)
    outcome.holds(not troubles, f"troubles: {troubles}", "unreadable")
    seq = -1 if found is None else found["seq"]
    outcome.holds(seq >= last, f"the checkpoint is of input {seq}, {last} was acknowledged", "lost")
    length = 600
    told_inputs = dict(enumerate(memory.series(length), 1))
    never = memory.Never()
    for number in range(1, seq + 1):
        never.engine.process(told_inputs[number])
    later: dict[int, dict[str, Any]] = {}
    for sid, inputs in disk.inputs.items():
        later = {number: entry for number, entry in inputs.items() if number > seq}
        never.take(memory.OnDisk({sid: later}, disk.decided), sid, told_inputs, outcome)
    life = memory.Life(folder, memory.settings_at(length), memory.now_at(length))
    outcome.holds(not life.recovered.troubles or later, f"troubles: {life.recovered.troubles}", "unreadable")
    if sorted(later) == list(range(seq + 1, seq + 1 + len(later))) and found is not None:
        differ = _bought(life.engine), _bought(never.engine)
        outcome.holds(differ[0] == differ[1], f"recovered {differ[0]}, should be {differ[1]}")
    life.begin()
    for event in memory.series(length + 20)[length:]:
        life.tell(event)
    life.recording.end()
    for place in FOLDERS.values():  # as the bot's housekeeping does at its start
        for segments in names_by_series(folder / place) if (folder / place).is_dir() else ():
            for segment in list_segments(folder / place, segments)[:-1]:
                if not segment.sealed:
                    seal(segment.path)
    try:
        proof = prove(folder)
    except UsageError as error:
        outcome.fail(str(error), "lost")
    else:
        outcome.holds(proof.exit_code != 1, f"prove: {proof.text()}")


def _bought(engine: Engine) -> dict[str, Any]:
    whole = memory.essence(engine)
    return {name: whole[name] for name in ("account", "positions", "orders")}


ALL = {
    "writer": (Kind("files.writer", KINDS["writer"].check, 1), ("400", "sync")),
    "streams": (Kind("power.streams", check_streams, 1), ("6000",)),
    "atomic": (KINDS["atomic"], ("150", "0.01")),
    "checkpoint": (KINDS["checkpoint"], ("150",)),
    "anchors": (KINDS["anchors"], ("150",)),
    "bot": (Kind("power.bot", check_bot, 1), ("600",)),
}


def cases(count: int, _: Path) -> list[str]:
    """Name losses of power, over every kind of file system and of driver in turn."""
    disks = machine.disk_kinds()
    kinds = list(ALL)
    return [f"{disks[n % len(disks)]} {kinds[n // len(disks) % len(kinds)]} {n}" for n in range(count)]


def run(case: str, folder: Path) -> Outcome:
    """Cut the power at a moment that the case's number chooses, and see what is on the disk when it is back."""
    kind, name, number = case.split()
    return cut(kind, name, int(number), folder)


def cut(kind: str, name: str, number: int, folder: Path, defect: str = "") -> Outcome:
    """Cut the power of a disk while a driver, which may have a defect, writes on it."""
    outcome = Outcome()
    driver, words = ALL[name]
    rng = random.Random(number)
    with machine.Disk(folder, kind) as disk:
        state = disk.place / "state"
        state.mkdir(mode=0o700)
        driver.prepare(state)
        subprocess.run(["sync", "-f", str(disk.place)], check=True)
        told = _until_cut(disk, machine.driver(driver.driver, state, *words), rng, defect)
        disk.restore()
        driver.check(state, told, outcome)
    return outcome


def _until_cut(disk: machine.Disk, command: Sequence[str], rng: random.Random, defect: str) -> list[str]:
    """Run a driver until it has told so much, cut the power, end it; return what it had told by then."""
    wanted, wait_s = rng.randrange(1, 120), rng.choice((0, rng.random() * 0.02))
    with subprocess.Popen(
        command, env=machine.environment(CRASH_DEFECT=defect), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        told: list[str] = []
        try:
            while len(told) < wanted and (line := process.stdout.readline()):
                told.append(line.decode().rstrip("\n"))
            time.sleep(wait_s)
            disk.cut()
        finally:
            process.kill()
        late = [f"late {line}" for line in machine.lines_of(process.stdout.read())]
        errors = process.stderr.read().decode()
        if not told:
            raise RuntimeError(f"the driver failed: {errors[-800:]}")
    return told + late


def with_defect(name: str, defect: str, tries: int = 12) -> Callable[[Path], Outcome]:
    """Return a try that cuts the power of a driver with a defect until that is found."""

    def found(folder: Path) -> Outcome:
        outcome = Outcome(count=0)
        for number in range(tries):
            home = folder / str(number)
            home.mkdir()
            outcome.add(cut("ext4", name, number, home, defect))
            if outcome.violations:
                break
        return outcome

    return found


ROW = Row(
    "power", "power loss while it writes, on ext4 and xfs: acknowledged by durability class", "losses",
    full=100, sample=6, cases=cases, run=run, needs=machine.no_loops,
    defects={
        "file not flushed": with_defect("writer", "file not flushed"),
        "file of a state not flushed": with_defect("checkpoint", "file not flushed", 40),
        "folder not flushed": with_defect("atomic", "folder not flushed"),
        "streams not flushed": with_defect("streams", "file not flushed"),
    },
)  # fmt: skip
