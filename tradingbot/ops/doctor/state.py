"""Whose state directory it is: the lock and who holds it, a bot that hangs, the stamp; whether it is the right one."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tradingbot.io.state_files import SCHEMA, lock_owner
from tradingbot.ops.checkup import Finding, Verdict
from tradingbot.ops.doctor.patient import Patient, number, process_name

__all__ = ["LOCKS", "bot", "left_lock", "lock", "ports", "state_directory"]

LOCKS = ("lock", "exchange.lock")
HANGS_S = 15.0  # status.json is written once a second
MOST = 2_000  # entries that are looked at for other state directories
SIGNS = ("journal", "checkpoint.json", "stamp.json", "drop_windows")


def left_lock(path: Path) -> dict[str, Any] | None:
    """Return what a lock that nobody holds still says of who held it, None where it says nothing; raise OSError."""
    if not os.path.lexists(path):
        return None
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        text = file.read(4096)
    if not text.strip():
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def lock(patient: Patient) -> Iterator[Finding]:
    """Say who holds the locks, and which are left over by a process that is gone."""
    for name in LOCKS:
        path = patient.state_dir / name
        if path.is_dir() or path.is_fifo() or (path.is_symlink() and not path.exists()):
            fix = "tradingbot doctor --fix lock (moves it aside)"
            yield Finding(name, Verdict.FAILED, f"{path} is no file: nothing can start there", fix=fix)
            continue
        owner = lock_owner(patient.state_dir, name)
        if owner is not None:
            yield _held(name, path, owner)
            continue
        try:
            left = left_lock(path)
        except OSError as error:
            fix = f"it belongs to another user, or the disk fails: ls -l {path}"
            yield Finding(name, Verdict.FAILED, f"{path} cannot be opened: {error.strerror}", fix=fix)
            continue
        if left is None:
            if name == LOCKS[0]:
                yield Finding(name, Verdict.OK, "free: no bot runs there")
            continue
        pid = int(number(left.get("pid"), 0))
        now = process_name(pid) if left.get("host") in (None, socket.gethostname()) else ""
        other = f"; process {pid} is something else now ({now})" if now else ""
        says = f"left over by process {pid or '?'}, which was killed or lost its power{other}: nobody holds it"
        fix = "nothing needs to be done: the next start takes it; tradingbot doctor --fix lock empties it"
        yield Finding(name, Verdict.WARNING, says, {"left": left, "process": now}, fix)


def _held(name: str, path: Path, owner: dict[str, Any]) -> Finding:
    pid, host = int(number(owner.get("pid"), 0)), owner.get("host")
    here = host in (None, socket.gethostname())
    command = process_name(pid) if here else ""
    evidence = {"owner": owner, "process": command}
    if not here:
        return Finding(name, Verdict.OK, f"held by process {pid} on {host}", evidence)
    holders = _holders(path)
    if pid in holders or (command and not holders):
        return Finding(name, Verdict.OK, f"held by process {pid} ({command})", evidence)
    others = {each: process_name(each) for each in holders}
    who = ", ".join(f"process {each} ({word})" for each, word in others.items()) or "a process that cannot be seen"
    fix = "see what that process is, and end it, if it is no bot: kill PID; the lock goes with it"
    says = f"held, and not by process {pid or '?'} that it names: by {who}"
    return Finding(name, Verdict.FAILED, says, evidence | {"holders": others}, fix)


def _holders(path: Path) -> list[int]:
    """Return the processes of this machine that have a file open, as far as they may be looked at."""
    try:
        wanted = path.stat()
    except OSError:
        return []
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        if int(entry.name) == os.getpid():
            continue
        try:
            for descriptor in (entry / "fd").iterdir():
                facts = descriptor.stat()
                if (facts.st_dev, facts.st_ino) == (wanted.st_dev, wanted.st_ino):
                    found.append(int(entry.name))
                    break
        except OSError:  # it has ended, or is somebody else's
            continue
    return found


def bot(patient: Patient) -> Finding:
    """Say whether the bot that holds the lock still tells of itself."""
    if patient.owner is None:
        left = patient.bot.get("state")
        dead = left not in (None, "stopping")
        says = f"none runs; the last one was {left!s:.20} when it was killed or lost its power" if dead else "none runs"
        return Finding("bot", Verdict.NOT_APPLICABLE, says)
    pid, age_s = int(number(patient.owner.get("pid"), 0)), patient.status_age_s()
    evidence = {"pid": pid, "status_age_s": age_s, "state": patient.bot.get("state")}
    if not patient.status or age_s is None:
        fix = "look again in a few seconds; if it stays so, look at its log"
        return Finding("bot", Verdict.WARNING, f"process {pid} has not told of itself yet", evidence, fix)
    if age_s > HANGS_S:
        asleep = _state(pid) == "T"
        why = "it is stopped (SIGSTOP)" if asleep else "it hangs, or its disk does not take the file"
        fix = (
            f"kill -CONT {pid}" if asleep else f"tradingbot stop; if it stays: kill -9 {pid}, nothing recorded is lost"
        )
        says = f"process {pid} has said nothing for {age_s:.0f} s: {why}"
        return Finding("bot", Verdict.FAILED, says, evidence, fix)
    word = str(patient.bot.get("state"))[:40]
    return Finding("bot", Verdict.OK, f"process {pid} is {word}, told {age_s:.0f} s ago", evidence)


def _state(pid: int) -> str:
    """Return the state of a process as the kernel spells it, "" where it cannot be told."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""


def ports(patient: Patient) -> Finding:
    """Say whether somebody listens where the exchange should, and whether a port can be opened at all."""
    if patient.setting("EXCHANGE") != "embedded":
        return Finding("ports", Verdict.NOT_APPLICABLE, "none is needed: only the embedded exchange listens")
    url = str(patient.setting("EMBEDDED_URL"))
    if not url:
        try:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
        except OSError as error:
            fix = "bring the loopback device up: ip link set lo up"
            return Finding("ports", Verdict.FAILED, f"no port can be opened on 127.0.0.1: {error.strerror}", fix=fix)
        return Finding("ports", Verdict.OK, "the bot brings its own exchange, on a free port")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme != "http" or parts.hostname not in ("127.0.0.1", "localhost") or port is None:
        fix = "tradingbot set EMBEDDED_URL=http://127.0.0.1:PORT (or an empty one: its own exchange)"
        return Finding("ports", Verdict.FAILED, f"EMBEDDED_URL = {url} is no address on this machine", fix=fix)
    try:
        socket.create_connection((parts.hostname, port), 1.0).close()
    except OSError as error:
        fix = f"start it: tradingbot exchange --port {port}"
        says = f"nobody listens on port {port} of EMBEDDED_URL: {error.strerror or error}"
        return Finding("ports", Verdict.FAILED, says, {"url": url}, fix)
    return Finding("ports", Verdict.OK, f"somebody listens on port {port}", {"url": url})


def state_directory(patient: Patient) -> Finding:
    """Say whether the state directory is there, can be written, and is the one that belongs to the settings."""
    path, name = patient.state_dir, "state directory"
    if os.path.lexists(path) and not path.is_dir():
        return Finding(name, Verdict.FAILED, f"{path} is no folder", fix="move it aside, or name another --state")
    signs = [sign for sign in SIGNS if (path / sign).exists()]
    if not signs:
        others = _others(patient)
        if not others:
            return Finding(name, Verdict.OK, f"{path} is {'empty' if path.is_dir() else 'not there'}: a first start")
        fix = f"if that is the one you mean: --state {others[0]}, or STATE_DIR in tradingbot.toml"
        says = f"nothing is recorded in {path}, but in {', '.join(others)}"
        return Finding(name, Verdict.WARNING, says, {"others": others}, fix)
    if not os.access(path, os.W_OK | os.X_OK):
        fix = f"it belongs to somebody else, or is mounted read-only: ls -ld {path}"
        return Finding(name, Verdict.FAILED, f"{path} cannot be written to", fix=fix)
    trouble, fix = _stamp(patient)
    if trouble:
        return Finding(name, Verdict.FAILED, trouble, fix=fix)
    return Finding(name, Verdict.OK, str(path), {"has": signs})


def _stamp(patient: Patient) -> tuple[str, str]:
    """Return what is wrong with the stamp, and what to do; nothing where nothing is."""
    path = patient.state_dir / "stamp.json"
    if not path.exists():
        return "", ""
    exchange = str(patient.setting("EXCHANGE"))
    try:
        facts = json.loads(path.read_bytes()[:1_000_000])
        found, schema = str(facts["exchange"]), facts["v"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        aside = (
            f'write it anew: {{"v": {SCHEMA}, "exchange": "{exchange}", "trading_mode": "paper"}}, or another --state'
        )
        return f"{path} is damaged: a bot refuses it", aside
    if schema != SCHEMA:
        return (
            f"{patient.state_dir} is of schema {schema!s:.20}, this version writes {SCHEMA}",
            "run the version that wrote it, or begin with another --state",
        )
    if found != exchange:
        return (
            f"{patient.state_dir} belongs to {found:.40}, and EXCHANGE is {exchange}",
            f"name another --state for {exchange}, or set EXCHANGE back to {found:.40}",
        )
    return "", ""


def _others(patient: Patient) -> list[str]:
    """Return other folders near that hold a bot's records: in the home, below it, and beside it."""
    home, mine = patient.home.path, patient.state_dir.resolve()
    found: list[str] = []
    looked = 0
    for folder in (home, *_folders(home), *_folders(home.parent)):
        for each in (folder, *_folders(folder)):
            looked += 1
            if looked > MOST:
                return found
            if each.resolve() != mine and (each / "journal").is_dir() and str(each) not in found:
                found.append(str(each))
    return found[:5]


def _folders(path: Path) -> list[Path]:
    try:
        with os.scandir(path) as entries:
            return sorted(Path(e.path) for e in entries if e.is_dir(follow_symlinks=False))[:200]
    except OSError:
        return []
