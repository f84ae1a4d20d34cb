"""Small ways to damage what is recorded, and to look at it afterwards."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from zlib import crc32

from tests.test_replay import crash_csv
from tradingbot.cli import main
from tradingbot.io.jsonl import Damage
from tradingbot.ops.record.findings import Report
from tradingbot.ops.record.fsck import examine

TICKS = "drop_windows/ticks"
LIMIT = 10_000_000_000


def make_state(place: Path) -> Path:
    """Return a state directory, made in `place`, with a session of four symbols and half an hour in it."""
    assert main(["import", str(crash_csv(place / "crash.csv", 30)), "--home", str(place)]) == 0
    return place / "state"


def look(state: Path, running: bool = False) -> Report:
    return examine(state, LIMIT, running)


def series(state: Path) -> list[Path]:
    return sorted((state / TICKS).glob("*.jsonl"))


def found(report: Report) -> list[tuple[str, str, int]]:
    return [(problem.kind.value, problem.file, problem.line) for problem in report.problems]


def edit(path: Path, line: int, change: Callable[[bytes], bytes]) -> None:
    """Change one line, from 1, of a file."""
    lines = path.read_bytes().splitlines(keepends=True)
    lines[line - 1] = change(lines[line - 1])
    path.write_bytes(b"".join(lines))


def signed(text: bytes) -> bytes:
    """Return members as a line with a right checksum, whatever they are."""
    return b'%b,"crc":"%08x"}\n' % (text, crc32(text))


def digests(state: Path) -> dict[str, str]:
    """Return the SHA-256 of every file but the locks."""
    files = (path for path in state.rglob("*") if path.is_file() and "lock" not in path.name)
    return {str(path.relative_to(state)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def run(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tradingbot", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, stdin=subprocess.DEVNULL)


def small(folder: Path, text: bytes) -> Path:
    """Make a state directory whose ticks are one file."""
    path = folder / TICKS / "A_B_20231114_0000.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text)
    return path


class Terminal(io.StringIO):
    """Answer as a person at a terminal would."""

    def isatty(self) -> bool:
        return True


DAMAGES: dict[str, tuple[Callable[[bytes], bytes], Damage]] = {
    "NUL bytes": (lambda line: b"\0" * (len(line) - 1) + b"\n", Damage.NULS),
    "a NUL in the middle": (lambda line: line[:40] + b"\0" + line[41:], Damage.NULS),
    "not UTF-8": (lambda line: line[:20] + b"\xff\xfe" + line[22:], Damage.NOT_UTF8),
    "duplicate keys": (lambda line: line.replace(b'{"v":1', b'{"v":1,"v":1'), Damage.WRONG_CRC),
    "a changed digit": (lambda line: line.replace(b'"last":', b'"last":1'), Damage.WRONG_CRC),
    "deep nesting": (lambda line: b'{"v":' + b"[" * 100_000 + b"]" * 100_000 + b"}\n", Damage.NOT_JSON),
    "deep nesting, right checksum": (
        lambda line: signed(b'{"v":' + b"[" * 100_000 + b"]" * 100_000),
        Damage.NOT_JSON,
    ),
    "5,000 digits": (lambda line: b'{"v":' + b"7" * 5_000 + b"}\n", Damage.NOT_JSON),
    "a list": (lambda line: b"[1,2]\n", Damage.NOT_JSON),
    "an empty line": (lambda line: b"\n", Damage.NOT_JSON),
    "no checksum": (lambda line: b'{"v":1}\n', Damage.NO_CRC),
    "too long": (lambda line: line[:-2] + b" " * (1 << 20) + b"}\n", Damage.TOO_LONG),
}
