"""Bundle: what a bug report needs in one archive, without secrets; as much of it as a broken environment allows."""

from __future__ import annotations

import gzip
import importlib.metadata
import io
import json
import os
import platform
import re
import sys
import tarfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tradingbot.errors import TradingBotError, UsageError
from tradingbot.io.home import OVERRIDES_NAME, Home, find_settings_file
from tradingbot.ops.doctor.diagnose import diagnose
from tradingbot.ops.doctor.exchange import find_credentials
from tradingbot.ops.doctor.patient import PACKAGE, UNMENDED, Patient, meet, rows
from tradingbot.ops.doctor.redaction import Redactor, secrets_of
from tradingbot.ops.doctor.start import DEPENDENCIES, find_lock_file

__all__ = ["Bundle", "make_bundle"]

MOST_LOGS, LOG_BYTES, FILE_BYTES = 3, 200_000, 2_000_000
MOST_ROLLBACKS, MOST_ERRORS = 20, 200
FSCK_S = 20.0
PLAIN = re.compile(r"[^A-Za-z0-9._/-]+")
TROUBLE = re.compile(r"^\S+ (WARNING|ERROR|CRITICAL) |Traceback|Error:")


@dataclass(frozen=True, slots=True)
class Bundle:
    """Hold where the archive is, what is inside (bytes by name), and how many secrets were taken out of it."""

    path: Path
    members: dict[str, int]
    bytes: int
    redacted: int

    def to_record(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {
            "v": 1, "path": str(self.path), "bytes": self.bytes, "members": self.members, "redacted": self.redacted,
        }  # fmt: skip

    def text(self) -> str:
        """Return it in words."""
        lines = [f"{self.bytes / 1000:,.1f} kB in {self.path}, readable by you alone"]
        lines += [f"  {size:>9,}  {name}" for name, size in self.members.items()]
        lines.append(f"{self.redacted} values that are secrets, or look like one, were taken out; before you send it:")
        lines.append(f"  tar -xzOf {self.path} | less")
        return "\n".join("".join(c if c.isprintable() else "?" for c in line) for line in lines)


class _LateError(Exception):
    """Say that there is no more time."""


def make_bundle(
    home: Home,
    out: Path | None = None,
    *,
    config: str | None = None,
    state: str | None = None,
    assignments: Iterable[str] = (),
    progress: Callable[[str], None] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Bundle:
    """Write an archive (.tar.gz, 0600) and return what is in it.

    `out` is never overwritten; without it the archive gets a name of its own in the working directory. Raises
    UsageError where it cannot be written; then nothing is left of it.
    """
    environ = os.environ if environ is None else environ
    assignments = tuple(assignments)
    path = out or Path.cwd() / time.strftime("tradingbot-bundle-%Y%m%dT%H%M%SZ.tar.gz", time.gmtime())
    if os.path.lexists(path):
        raise UsageError(f"{path} is there already: name another file with --out")
    patient = meet(home, config, state, assignments, environ)
    redactor = Redactor(secrets_of(environ, find_credentials(environ).values()), home.path)
    say = progress or (lambda _: None)
    report = diagnose(
        home, config=config, state=state, assignments=assignments, environ=environ, progress=progress
    )  # fmt: skip
    members: dict[str, bytes] = {"doctor.txt": report.text().encode(errors="backslashreplace") + b"\n"}
    members["doctor.json"] = _json(report.to_record())
    for name, make in PARTS.items():
        say(name)
        try:
            members |= {f"{name}/{each}" if each else name: text for each, text in make(patient)}
        except Exception as error:  # noqa: BLE001  (whatever is broken must not keep the rest out)
            members[f"{name}.missing.txt"] = f"{type(error).__name__}: {error}\n".encode(errors="backslashreplace")
    clean = {PLAIN.sub("_", redactor.text(name)): redactor.bytes(text) for name, text in members.items()}
    data = _pack(clean)
    _write(path, data)
    return Bundle(path, {name: len(text) for name, text in clean.items()}, len(data), redactor.count)


def _json(document: Any) -> bytes:
    return json.dumps(document, indent=1, default=str).encode() + b"\n"


def _pack(members: Mapping[str, bytes]) -> bytes:
    """Return a .tar.gz of members, without a name, a user or a time of this machine in it."""
    raw = io.BytesIO()
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as squeezed,
        tarfile.open(fileobj=squeezed, mode="w") as archive,
    ):
        for name, text in members.items():
            facts = tarfile.TarInfo(f"tradingbot-bundle/{name}")
            facts.size, facts.mode = len(text), 0o600
            archive.addfile(facts, io.BytesIO(text))
    return raw.getvalue()


def _write(path: Path, data: bytes) -> None:
    """Write a file whole, or nothing of it, and never over another one."""
    partial = path.with_name(path.name + ".part")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise UsageError(f"{partial} cannot be written: {error.strerror}; name another place with --out") from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.link(partial, path)
    except FileExistsError:
        raise UsageError(f"{path} is there already: name another file with --out") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}; name another place with --out") from None
    finally:
        partial.unlink(missing_ok=True)


Part = Iterator[tuple[str, bytes]]


def _versions(_: Patient) -> Part:
    packages = {}
    for each in importlib.metadata.distributions():
        try:
            packages[str(each.metadata["Name"])] = each.version
        except Exception:  # noqa: BLE001, S112  (metadata that cannot be read)
            continue
    lock = find_lock_file()
    facts = {
        "tradingbot": getattr(sys.modules["tradingbot"], "__version__", "?"), "from": str(PACKAGE),
        "python": sys.version,
        "executable": sys.executable, "prefix": sys.prefix, "system": platform.platform(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(), "encoding": sys.getfilesystemencoding(), "lock": None if lock is None else str(lock),
        "sys.path": sys.path, "dependencies": {name: packages.get(name) for name in DEPENDENCIES},
        "packages": dict(sorted(packages.items())),
    }  # fmt: skip
    yield "", _json(facts)


def _settings(patient: Patient) -> Part:
    if patient.effective is None:
        yield "effective.json", _json({"trouble": patient.trouble, "as far as can be read": patient.layers})
    else:
        settings, sources = patient.effective.settings, patient.effective.sources
        values = {name: {"value": getattr(settings, name), "source": where} for name, where in sources.items()}
        yield "effective.json", _json(values)
    for path in (_settings_file(patient), patient.state_dir / OVERRIDES_NAME, patient.state_dir / "stamp.json"):
        if path is not None and path.is_file():
            yield path.name, _tail(path, FILE_BYTES)


def _settings_file(patient: Patient) -> Path | None:
    try:
        return find_settings_file(patient.home, patient.config)
    except TradingBotError:
        return None


def _status(patient: Patient) -> Part:
    path = patient.state_dir / "status.json"
    if path.is_file():
        yield "", _tail(path, FILE_BYTES)


def _rollbacks(patient: Patient) -> Part:
    folders = sorted((patient.state_dir / "rollbacks").glob("*/plan.json"))[-MOST_ROLLBACKS:]
    for plan in folders:
        for name in ("plan.json", "done.jsonl", "report.json", "report.txt"):
            path = plan.parent / name
            if path.is_file():
                yield f"{plan.parent.name}/{name}", _tail(path, FILE_BYTES)


def _audit(patient: Patient) -> Part:
    path = patient.state_dir / "audit.jsonl"
    if path.is_file():
        yield "", _tail(path, LOG_BYTES)


def _logs(patient: Patient) -> Part:
    """Yield the ends of the newest logs."""
    for path in _newest_logs(patient):
        yield path.name, _tail(path, LOG_BYTES)


def _newest_logs(patient: Patient) -> list[Path]:
    paths = [path for path in patient.log_dir.glob("*.log*") if path.is_file()]
    return sorted(paths, key=lambda path: path.stat().st_mtime, reverse=True)[:MOST_LOGS]


def _errors(patient: Patient) -> Part:
    """Yield the last errors and warnings, of the status and of the logs."""
    lines = []
    for each in rows(patient.status.get("errors")):
        lines.append(f"status {each.get('time_ms')} {each.get('level')} {each.get('text')}")
    for path in _newest_logs(patient)[::-1]:
        text = _tail(path, FILE_BYTES).decode(errors="replace")
        lines += [f"{path.name}: {line}" for line in text.splitlines() if TROUBLE.search(line)]
    yield "", "\n".join(lines[-MOST_ERRORS:] or ["none"]).encode(errors="backslashreplace") + b"\n"


def _fsck(patient: Patient) -> Part:
    if patient.is_unmended:
        yield "", f"what is recorded {UNMENDED}\n".encode()
        return
    from tradingbot.ops.record.fsck import examine
    from tradingbot.ops.record.fsck_text import report_text

    end_s = time.monotonic() + FSCK_S

    def in_time(*_: object) -> None:
        if time.monotonic() > end_s:
            raise _LateError

    gb = 10.0 if patient.effective is None else patient.effective.settings.STREAMS_MAX_GB
    try:
        report = examine(patient.state_dir, int(gb * 1e9), patient.is_running, in_time)
        text = report_text(report, 0)
    except _LateError:
        text = f"not done in {FSCK_S:g} s: run tradingbot fsck {patient.state_dir} yourself"
    yield "", text.encode(errors="backslashreplace") + b"\n"


def _tail(path: Path, most: int) -> bytes:
    """Return the end of a file, from the beginning of a line on. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        size = os.fstat(descriptor).st_size
        file.seek(max(size - most, 0))
        text = file.read(most)
    return text if size <= most else text.partition(b"\n")[2]


PARTS: dict[str, Callable[[Patient], Part]] = {
    "versions.json": _versions, "settings": _settings, "status.json": _status, "errors.txt": _errors, "logs": _logs,
    "rollbacks": _rollbacks, "audit.jsonl": _audit, "fsck.txt": _fsck,
}  # fmt: skip
"""What is put in, by name: one file, or a folder of some."""
