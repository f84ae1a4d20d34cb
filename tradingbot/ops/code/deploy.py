"""Another revision's bot in the place of the running one: stopped, started alike, seen to run, or the old one again."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tradingbot.errors import Unrecoverable
from tradingbot.io.state_files import lock_owner
from tradingbot.ops.checkup import Finding, Verdict
from tradingbot.ops.control import stop
from tradingbot.ops.report.process import MARK
from tradingbot.ops.rollback.restart import UP, status_of

__all__ = ["DeployError", "Launch", "check_reads", "launch_of", "start_bot", "swap"]

START_S = 60.0
SECRET = re.compile(r"(?i)api|key|secret|token|passw|credential|auth|cookie|proxy|_url$")
SHADOWS = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PYTHONSTARTUP")
"""What would have another interpreter import the old code."""


class DeployError(Unrecoverable):
    """Say why a bot cannot be replaced."""


@dataclass(frozen=True, slots=True)
class Launch:
    """Hold how a bot was started: program, arguments, folder, environment; what looks like a secret is named alone."""

    python: str
    options: tuple[str, ...]  # of the interpreter
    arguments: tuple[str, ...]  # of the program
    cwd: str
    command: tuple[str, ...]
    environ: dict[str, str] = field(repr=False, default_factory=dict)
    withheld: tuple[str, ...] = ()

    def to_record(self) -> dict[str, Any]:
        """Return a JSON object without secrets."""
        withheld = sorted(name for name in self.environ if SECRET.search(name))
        kept = {name: value for name, value in self.environ.items() if name not in withheld}
        return asdict(self) | {"environ": kept, "withheld": withheld}


def launch_of(state_dir: Path) -> Launch:
    """Return how the running bot was started; raise DeployError where that cannot be seen."""
    owner = lock_owner(state_dir)
    if owner is None or owner.get("host") != socket.gethostname():
        raise DeployError(f"the bot on {state_dir} does not run on this machine: deploy where it runs")
    process = Path("/proc") / str(owner.get("pid"))
    try:
        command = [os.fsdecode(word) for word in (process / "cmdline").read_bytes().split(b"\0")[:-1]]
        pairs = [os.fsdecode(pair).partition("=") for pair in (process / "environ").read_bytes().split(b"\0") if pair]
        cwd = str((process / "cwd").readlink())
    except OSError as error:
        raise DeployError(f"how process {owner.get('pid')} was started cannot be read: {error.strerror}") from None
    options, arguments = _split(command)
    environ = {name: value for name, _, value in pairs if name != MARK}  # a report that is cut off would end it
    return Launch(command[0], options, arguments, cwd, tuple(command), environ)


def _split(command: list[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the interpreter's options, and the arguments of tradingbot."""
    at = 1
    while at < len(command) and command[at].startswith("-") and command[at] != "-m":
        at += 2 if command[at] in ("-X", "-W") else 1
    rest = command[at:]
    if rest[:2] == ["-m", "tradingbot"]:
        return tuple(command[1:at]), tuple(rest[2:])
    if rest and (Path(rest[0]).name == "tradingbot" or rest[0].endswith("tradingbot/__main__.py")):
        return tuple(command[1:at]), tuple(rest[1:])
    raise DeployError(f"the bot was started in a way that is not understood: {' '.join(command)[:200]}")


def swap(launch: Launch, python: Path) -> Launch:
    """Return how another environment's bot is started alike: same arguments, folder and variables."""
    options = (*(option for option in launch.options if option != "-P"), "-P")  # never what lies in the folder
    environ = {name: value for name, value in launch.environ.items() if name not in SHADOWS}
    command = (str(python), *options, "-m", "tradingbot", *launch.arguments)
    return Launch(str(python), options, launch.arguments, launch.cwd, command, environ, launch.withheld)


SCRIPT = """
import json
from tradingbot.io import saved, state_files, streams
print(json.dumps([state_files.SCHEMA, streams.VERSION, saved.VERSION]))
"""


def check_reads(state_dir: Path, launch: Launch) -> Finding:
    """Ask another revision's own code whether it reads what lies in a state directory, and takes the bot's settings."""

    def ask(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # noqa: S603  (no shell)
            words, cwd=launch.cwd, env=launch.environ, capture_output=True, text=True, timeout=60, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip

    fix = "take a later revision, or have it begin with another --state; nothing was stopped"
    found = _versions(state_dir)
    done = ask(launch.python, "-P", "-c", SCRIPT)
    try:
        reads = dict(zip(("stamp.json", "journal", "checkpoint.json"), json.loads(done.stdout), strict=True))
    except ValueError:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        return Finding("schema", Verdict.FAILED, f"this revision does not tell what it reads: {last}", {}, fix)
    evidence: dict[str, Any] = {"found": found, "reads": reads}
    wrong = [f"{name} is of schema {v}, it reads {reads[name]}" for name, v in found.items() if v != reads[name]]
    if wrong:
        return Finding("schema", Verdict.FAILED, "; ".join(wrong), evidence, fix)
    done = ask(*launch.command, "config", "--json")
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        says = f"it does not take the running bot's settings and arguments: {last}"
        return Finding("schema", Verdict.FAILED, says, evidence, f"take out what it does not know; {fix}")
    return Finding("schema", Verdict.OK, "it reads the state, and takes the bot's settings and arguments", evidence)


def _versions(state_dir: Path) -> dict[str, Any]:
    """Return the schema of what is there, as each file says it."""
    found: dict[str, Any] = {}
    for name in ("stamp.json", "checkpoint.json"):
        with contextlib.suppress(FileNotFoundError):
            try:
                text = (state_dir / name).read_bytes()
                found[name] = json.loads(text.splitlines()[0] if name != "stamp.json" else text).get("v")
            except (ValueError, AttributeError, IndexError):
                found[name] = "unknown (damaged)"
    journal = sorted((state_dir / "journal").glob("*.jsonl"))
    if journal:
        with contextlib.suppress(OSError, ValueError, IndexError), journal[-1].open("rb") as file:
            found["journal"] = json.loads(file.readline())["v"]
    return found


def start_bot(state_dir: Path, launch: Launch, log: Path) -> dict[str, Any]:
    """Start a bot on its own, and wait until it runs; raise DeployError with its last words where it does not."""
    before = str(status_of(state_dir).get("bot", {}).get("sid", ""))
    began_s = time.monotonic()
    with log.open("ab") as output:
        os.fchmod(output.fileno(), 0o600)
        began = output.tell()
        try:
            process = subprocess.Popen(  # noqa: S603  (no shell)
                launch.command, cwd=launch.cwd, env=launch.environ, stdin=subprocess.DEVNULL, stdout=output,
                stderr=output, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise DeployError(f"{launch.python} cannot be started: {error.strerror}") from None
    while time.monotonic() < began_s + START_S:
        told = status_of(state_dir).get("bot", {})
        if told.get("pid") == process.pid and str(told.get("sid")) > before and told.get("state") in UP:
            took_s = round(time.monotonic() - began_s, 1)
            threading.Thread(target=process.wait, daemon=True).start()  # it outlives us, or is reaped by us
            return {"pid": process.pid, "sid": str(told["sid"]), "version": str(told.get("version")), "took_s": took_s}
        if process.poll() is not None:
            break
        time.sleep(0.05)
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        if process.poll() is None:
            process.kill()
            process.wait()
    said = log.read_bytes()[began:].decode(errors="replace").strip().splitlines()
    raise DeployError(f"it has not come up (exit {process.returncode}): {said[-1] if said else 'it said nothing'}")


def stop_bot(state_dir: Path, timeout_s: float) -> int:
    """Stop the running bot cleanly; return its process."""
    return stop(state_dir, timeout_s)
