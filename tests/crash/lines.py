"""Lines and names that no writer made: torn at any byte, bad inside, symbols that would climb out."""

from __future__ import annotations

import random
import resource
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.crash import machine
from tests.crash.defects import injected
from tests.crash.files import T0, check_writer, read_records, record
from tests.crash.rows import Outcome, Row, numbered, span
from tradingbot.config import make_settings
from tradingbot.io import jsonl_read, segments, stream_writer
from tradingbot.io.jsonl import ReadReport, RotatingJSONLWriter, encode
from tradingbot.io.lines import to_json
from tradingbot.io.segments import list_segments, segment_name
from tradingbot.io.streams import FOLDERS, JOURNAL, Stream
from tradingbot.services.warm_start import recover

TORN_LINES = 50
WHOLE = b"".join(encode(record(seq)) for seq in range(TORN_LINES))
LEAST = 20  # bytes of the smallest limit of a file's size


def torn(case: str, folder: Path) -> Outcome:
    """Cut a segment at a byte, or let no file grow beyond it; write on: whole lines stay, the torn one goes aside."""
    outcome = Outcome(count=0)
    for cut in span(case):
        outcome.count += 1
        if cut <= len(WHOLE):
            _cut_at(cut, folder / "stream", outcome)
        else:
            _limited_to(LEAST + 7 * (cut - len(WHOLE) - 1), folder / str(cut), outcome)
    return outcome


def _cut_at(cut: int, folder: Path, outcome: Outcome) -> None:
    folder.mkdir(exist_ok=True)
    path = folder / segment_name("x", 20261122, 0)
    aside = path.with_name(path.name + ".torn")
    aside.unlink(missing_ok=True)
    path.write_bytes(WHOLE[:cut])
    lines = WHOLE[:cut].count(b"\n")
    report = ReadReport()
    before = [entry.record for entry in jsonl_read.read_jsonl([path], report)]
    is_torn = not WHOLE[:cut].endswith(b"\n") and cut > 0
    outcome.holds(before == [record(seq) for seq in range(lines)], f"cut at {cut}: {len(before)} records", "lost")
    outcome.holds(report.damaged == is_torn, f"cut at {cut}: {report.damaged} damaged", "unreadable")
    for _ in range(2):
        stream = RotatingJSONLWriter(folder, "x")
        stream.write(T0, encode(record(lines)))
        stream.release()
        lines += 1
    found = read_records(folder, outcome)
    outcome.holds(found == [record(seq) for seq in range(lines)], f"cut at {cut}: then {len(found)} records", "lost")
    rest = aside.read_bytes() if aside.exists() else b""
    outcome.holds(rest == WHOLE[:cut].rpartition(b"\n")[2], f"cut at {cut}: {rest!r} set aside", "lost")


def _limited_to(most: int, folder: Path, outcome: Outcome, defect: str = "") -> None:
    folder.mkdir()
    done = machine.run(machine.driver("lines.limited", folder, most), defect=defect)
    outcome.holds(done.returncode == 0, f"files of at most {most} bytes: {done.stderr.decode()[-500:]}")
    check_writer(folder, machine.lines_of(done.stdout), outcome)


def limited(folder: Path, tell: Callable[[object], None], words: list[str]) -> None:
    """Write records while no file may grow beyond some bytes; then lift that, and write those that failed."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    stream = RotatingJSONLWriter(folder / "ticks", "x", 10**6)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(words[0]), hard))
    for seq in range(12):
        try:
            stream.write(T0, encode(record(seq)))
        except OSError:
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
            stream.write(T0, encode(record(seq)))
        tell(seq)
    stream.release()


def torn_cases(count: int, folder: Path) -> list[str]:
    """Name cuts at every byte, or at as many bytes as asked for, the last ones by a limit of the process."""
    if count > len(WHOLE):
        return numbered(200)(count, folder)
    step = len(WHOLE) / count
    return [*(f"{int(place * step)}+1" for place in range(count)), f"{len(WHOLE) + 3}+2"]


JUNK: tuple[bytes, ...] = (
    b"", b" ", b"null", b"[]", b"{}", b"0" * 5_000, b'{"v":' + b"9" * 5_000 + b"}", b"[" * 100_000, b'{"a":' * 100_000,
    b'{"a":1,"a":2}', b'{"v":1e999}', b'{"v":NaN}', b"\xff\xfe\xfa", b"\xed\xa0\x80", b'"\\ud800"', b"\0" * 300,
    b"x" * 1_100_000, b'{"crc":"00000000"}', b',"crc":"00000000"}', b'{"v":1,"crc":null}', b"\xef\xbb\xbf{}", b"\r",
)  # fmt: skip


def bad_file(rng: random.Random) -> tuple[bytes, list[dict[str, Any]], int]:
    """Return the text of a file of good and bad lines, its good records, and how many lines are bad."""
    lines: list[bytes] = []
    good: list[dict[str, Any]] = []
    for seq in range(rng.randrange(1, 12)):
        entry = record(seq)
        line = encode(entry)[:-1]
        if rng.random() < 0.45:
            lines.append(line)
            good.append(entry)
            continue
        kind = rng.randrange(6)
        place = rng.randrange(len(line))
        if kind == 0:
            line = rng.choice(JUNK)
        elif kind == 1:  # a bit is flipped
            line = line[:place] + bytes([line[place] ^ 1 << rng.randrange(8)]) + line[place + 1 :]
        elif kind == 2:
            line = line[:place] + bytes(rng.randrange(1, 9)) + line[place:]
        elif kind == 3:
            line = line[:place]
        elif kind == 4:  # two lines became one
            line += line
        else:
            line = rng.randbytes(rng.randrange(1, 60))
        lines += line.split(b"\n")
    return b"\n".join(lines) + b"\n", good, len(lines) - len(good)


def bad(case: str, folder: Path) -> Outcome:
    """Read files of good and bad lines forwards and from their end: the good ones, and the others counted."""
    outcome = Outcome(count=0)
    state = folder / "state"
    for number in span(case):
        outcome.count += 1
        text, good, damaged = bad_file(random.Random(number))
        place = folder / "bad"
        place.mkdir(exist_ok=True)
        path = place / segment_name("x", 20261122, 0)
        path.write_bytes(text)
        report = ReadReport()
        found = [entry.record for entry in jsonl_read.read_jsonl([path], report)]
        outcome.holds(found == good, f"file {number}: {len(found)} records of {len(good)}", "lost")
        outcome.holds(
            report.damaged == damaged, f"file {number}: {report.damaged} bad lines of {damaged}", "unreadable"
        )
        tail = jsonl_read.read_jsonl_tail(place, "x", 1_000)
        outcome.holds(tail == good, f"file {number}: {len(tail)} records of {len(good)} from its end", "lost")
        if number % 50 == 0:
            for stream, series in ((Stream.TICKS, "BTC_USDT"), (JOURNAL, "journal"), (Stream.ANCHORS, "anchors")):
                folder_of = state / FOLDERS[stream]
                folder_of.mkdir(parents=True, exist_ok=True)
                path = folder_of / segment_name(series, 20261122, number)
                path.write_bytes(b"\n".join(line for line in text.split(b"\n") if b'"seq"' not in line) + b"\n")
            try:
                recover(state, make_settings({}), {}, T0)
            except Exception as error:  # noqa: BLE001  (whatever it is, a start must not fall over it)
                outcome.fail(f"file {number}: a start fell over it: {error!r}")
    return outcome


PIECES = (
    "../", "..", "/", "\0", "\n", "BTC/USDT", "btc/usdt", ":USDT", "_", "%", "%2F", "%5F", "~", " ", "é", "😀",
    "\udc80", "x" * 150, ".", "\\", "\x1b[2J", "=1+1", "A", "a", "CON", "-",
)  # fmt: skip


def hostile(case: str, folder: Path) -> Outcome:
    """Write ticks of symbols that no exchange should have: each in files of its own, nothing outside their folder."""
    outcome = Outcome(count=0)
    rng = random.Random(case)
    symbols = ["../../x", "a\0b", "a\nb", "y" * 300, "BTC/USDT", "btc/usdt", "BTC/USDT:USDT", "BTC_USDT", "", "."]
    symbols += ["".join(rng.choices(PIECES, k=rng.randrange(1, 6))) for _ in span(case)]
    symbols = list(dict.fromkeys(symbols))
    outcome.count = len(symbols)
    state = folder / "outer" / "state"
    state.mkdir(parents=True)
    writer = stream_writer.StreamWriter(state, "s", 10**6, 1, 1, lambda _: None, threaded=False)
    for seq, symbol in enumerate(symbols):
        writer.put(Stream.TICKS, segments.series_of(symbol), T0, to_json({"v": 1, "seq": seq, "ts_ms": T0}))
    writer.close()
    outcome.holds(writer.states[Stream.TICKS].dropped == 0, "ticks were dropped", "lost")
    ticks = state / FOLDERS[Stream.TICKS]
    for seq, symbol in enumerate(symbols):
        found = [entry["seq"] for entry in read_records(ticks, outcome, segments.series_of(symbol))]
        outcome.holds(found == [seq], f"{symbol!r:.80} holds {found}, not {seq}", "lost")
    listed = list_segments(ticks) if ticks.is_dir() else []
    outcome.holds(len(listed) == len(symbols), f"{len(listed)} files of {len(symbols)} symbols", "gaps")
    strangers = [path for path in folder.rglob("*") if path.is_file() and path.parent != ticks]
    outcome.holds(not strangers, f"outside: {strangers}")
    return outcome


def _defect(run: Callable[[str, Path], Outcome], case: str, name: str) -> Callable[[Path], Outcome]:
    def found(folder: Path) -> Outcome:
        with injected(name):
            return run(case, folder)

    return found


def _forgotten_rest(folder: Path) -> Outcome:
    outcome = Outcome()
    for most in range(LEAST, LEAST + 100, 7):
        _limited_to(most, folder / str(most), outcome, "rest of a short write forgotten")
    return outcome


def tells_case() -> str:
    """Say why names cannot be one to one here, "" if they can: the file system must tell a from A."""
    done = subprocess.run(["sh", "-c", 'cd "$(mktemp -d)" && touch a && test ! -e A'], check=False)
    return "" if done.returncode == 0 else "the file system does not tell capitals from small letters"


ROWS = (
    Row(
        "torn", f"a segment cut at every byte of {TORN_LINES} lines, files that may not grow: set aside once",
        "cuts", full=len(WHOLE) + 100, sample=40, cases=torn_cases, run=torn,
        defects={
            "append on a torn tail": _defect(torn, "30+2", "append on a torn tail"),
            "rest of a short write forgotten": _forgotten_rest,
        },
    ),
    Row(
        "bad", "bad lines inside: skipped, counted, nothing raised, also at a start", "files",
        full=10_000, sample=150, cases=numbered(250), run=bad,
        defects={"checksum not compared": _defect(bad, "1+200", "checksum not compared")},
    ),
    Row(
        "symbols", "hostile symbols: nothing outside the state directory, names one to one", "symbols",
        full=1_000, sample=100, cases=numbered(100), run=hostile, needs=tells_case,
        defects={"names not encoded": _defect(hostile, "0+100", "names not encoded")},
    ),
)  # fmt: skip
