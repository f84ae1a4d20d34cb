"""The real bot on its embedded exchange: killed again and again, started twice, run under any umask."""

from __future__ import annotations

import random
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.crash import machine
from tests.crash.memory import OnDisk, read_state
from tests.crash.rows import Outcome, Row, numbered, span
from tradingbot.io.saved import load_checkpoint

KILLS = 25  # of one chain
EVENTFUL = (
    "DROP_TRIGGER_VALUE=0.9993", "GLOBAL_TRADING=true", "COOLDOWN_MIN=0", "DEBOUNCE_S=1", "MAX_SPREAD_BPS=500",
    "MAX_ENTRY_AWAY_BPS=500", "ENTRY_BURST_MAX=50", "MAX_LOSSES_IN_ROW=1000", "MAX_TRADES_PER_DAY=100000",
    "TAKE_PROFIT_THRESHOLD=1.001", "STOP_LOSS_THRESHOLD=0.999", "EMBEDDED_SYMBOLS=5", "EMBEDDED_SPEED=60",
    "MAX_FILE_MB=0.1", "MIN_FREE_MB=1", "ANCHOR_STALE_MINUTES=2", "MAX_DAILY_LOSS_PCT=100",
)  # fmt: skip


def command(home: Path, *words: str, defect: str = "") -> list[str]:
    """Return the command of a bot, with a defect if one is named."""
    if defect:
        return machine.driver("bots.cli", home, *words)
    return [machine.PYTHON, "-m", "tradingbot", "--home", str(home), *words]


def cli(folder: Path, _: Callable[[object], None], words: list[str]) -> None:
    """Be the command line in a process that may have a defect."""
    from tradingbot.cli import main

    raise SystemExit(main(["--home", str(folder), *words]))


def sets() -> list[str]:
    """Return the settings under which much happens, as words of a command."""
    return [word for assignment in EVENTFUL for word in ("--set", assignment)]


@contextmanager
def running(home: Path, words: list[str], defect: str = "") -> Iterator[subprocess.Popen[bytes]]:
    """Run a bot until the block ends."""
    with (home / "stderr").open("ab") as log, subprocess.Popen(
        words, env=machine.environment(CRASH_DEFECT=defect), stdout=subprocess.DEVNULL, stderr=log,
        start_new_session=True,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


def kill_chain(case: str, folder: Path, defect: str = "") -> Outcome:
    """Kill a bot at random times, start it again where it was, and hold what it has left against itself each time."""
    numbers = span(case)
    outcome = Outcome(count=0)
    home = folder / "home"
    home.mkdir()
    for number in numbers:
        rng = random.Random(number)
        with running(home, command(home, *sets(), defect=defect), defect) as process:
            time.sleep(rng.uniform(0.4, 3.4))
            code = process.poll()
            outcome.holds(code is None, f"kill {number}: it had ended with {code}: {_said(home)}")
        outcome.count += 1
        consistent(home / "state", f"kill {number}", outcome)
        if outcome.violations:
            break
    done = machine.run(command(home, "--duration", "3", "--no-dashboard", *sets(), defect=defect), defect=defect)
    outcome.holds(done.returncode == 0, f"the last run ended with {done.returncode}: {done.stderr.decode()[-500:]}")
    disk = consistent(home / "state", "the last run", outcome)
    bought(home / "state", disk, outcome)
    proof = machine.run(command(home, "prove"))
    outcome.holds(proof.returncode == 0, f"prove ended with {proof.returncode}: {proof.stdout.decode()[-1500:]}")
    text = (home / "stderr").read_text(errors="replace")
    outcome.holds("Traceback" not in text, f"a traceback: {text[text.find('Traceback') :][:800]}")
    return outcome


def _said(home: Path) -> str:
    return (home / "stderr").read_text(errors="replace")[-500:]


def consistent(state_dir: Path, when: str, outcome: Outcome) -> OnDisk:
    """See that what is on disk can be read and contradicts itself nowhere."""
    found, troubles = load_checkpoint(state_dir)
    outcome.holds(not troubles, f"{when}: {troubles}", "unreadable")
    disk = read_state(state_dir, outcome)
    seen: set[tuple[str, ...]] = set()
    sids = [entry["sid"] for entry in disk.journal if entry.get("type") == "session_start"]
    outcome.holds(sids == sorted(set(sids)), f"{when}: sessions do not sort as they began: {sids}")
    told = {sid: max([0, *disk.decided.get(sid, ())]) for sid in disk.inputs}
    for entry in disk.journal:
        kind = entry.get("type")
        if kind in ("decision", "fill"):
            key = (kind, entry["decision_id"], entry.get("side", ""))
            outcome.holds(key not in seen, f"{when}: {key} is there twice")
            seen.add(key)
        if (
            kind != "decision" or "restart" not in entry["reasons"]
        ):  # what a start has made up for answers what is there
            number = entry.get("cause", entry.get("seq", 0))
            told[entry["sid"]] = max(told.get(entry["sid"], 0), number)
    if found is not None:
        told[found["sid"]] = max(told.get(found["sid"], 0), found["seq"])
    for sid, last in told.items():  # a record of the journal, or a checkpoint, comes behind all that led to it
        absent = set(range(1, last + 1)) - disk.inputs.get(sid, {}).keys()
        outcome.holds(not absent, f"{when}: of session {sid} inputs {sorted(absent)[:5]} of {last} are missing", "gaps")
    return disk


def bought(state_dir: Path, disk: OnDisk, outcome: Outcome) -> None:
    """See that cash and positions are what the journal's fills say."""
    found, _ = load_checkpoint(state_dir)
    if found is None:
        outcome.fail("there is no checkpoint", "lost")
        return
    fills = [entry for entry in disk.journal if entry.get("type") == "fill"]
    held: dict[str, float] = {}
    cash = found["checkpoint"]["settings"]["PAPER_START_QUOTE"]
    for fill in fills:
        sign = 1 if fill["side"] == "buy" else -1
        cash -= sign * fill["qty"] * fill["price"] + fill["fee"]
        outcome.holds(abs(cash - fill["cash"]) < 1e-6, f"cash is {fill['cash']} after {fill}, should be {cash}")
        held[fill["symbol"]] = held.get(fill["symbol"], 0.0) + sign * fill["qty"]
    account = found["checkpoint"]["account"]
    outcome.holds(abs(account["cash"] - cash) < 1e-6, f"cash is {account['cash']}, the fills say {cash}")
    positions = {
        memory["symbol"]: memory["position"]["qty"] for memory in found["checkpoint"]["symbols"] if memory["position"]
    }
    wanted = {symbol: qty for symbol, qty in held.items() if abs(qty) > 1e-12}
    outcome.holds(positions == wanted, f"positions are {positions}, the fills say {wanted}")
    outcome.holds(len(fills) > 2, f"only {len(fills)} fills: too little has happened")


def second_bots(case: str, folder: Path, defect: str = "") -> Outcome:
    """Start a second bot on the directory of one that runs: refused, exit 3, whose it is in one line."""
    outcome = Outcome(count=0)
    home = folder / "home"
    home.mkdir()
    with running(home, command(home, *sets(), defect=defect), defect) as process:
        end = time.monotonic() + 60
        while not (home / "state" / "status.json").exists() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        for number in span(case):
            done = machine.run(command(home, "--duration", "1", "--no-dashboard", defect=defect), 30, defect)
            outcome.count += 1
            text = done.stderr.decode()
            refused = done.returncode == 3 and f"is in use by process {process.pid}" in text
            outcome.holds(
                refused and text.count("\n") == 1, f"start {number} ended with {done.returncode}: {text[-300:]}"
            )
            outcome.holds(process.poll() is None, "the first bot has ended")
            if outcome.violations:
                break
    return outcome


UMASKS = ("0", "022", "077")


def umask_cases(count: int, _: Path) -> list[str]:
    """Name umasks."""
    return list(UMASKS[:count])


def modes(case: str, folder: Path, defect: str = "") -> Outcome:
    """Run bot and commands under a umask: all that they leave is the user's own."""
    outcome = Outcome()
    home = folder / "home"
    home.mkdir()
    before = f"umask {case}"
    for words in (
        ["--duration", "6", "--no-dashboard", *sets(), "--set", "MAX_FILE_MB=0.02"],
        ["kill", "--why", "a try"],
        ["--duration", "3", "--no-dashboard", *sets()],
        ["anchors", "reset", "BTC/USDT", "--why", "a try", "--yes"],
    ):
        done = machine.run(command(home, *words, defect=defect), defect=defect, before=before)
        outcome.holds(done.returncode == 0, f"{words[0]} ended with {done.returncode}: {done.stderr.decode()[-300:]}")
    paths = [path for name in ("state", "logs") for path in ((home / name), *(home / name).rglob("*"))]
    for path in paths:
        mode, wanted = stat.S_IMODE(path.stat().st_mode), 0o700 if path.is_dir() else 0o600
        outcome.holds(mode == wanted, f"{path.relative_to(home)} is {mode:o}")
    outcome.holds(any(path.suffix == ".zst" for path in paths), "nothing was sealed")
    outcome.holds((home / "state" / "requests").is_dir(), "no request was left")
    return outcome


def _defect(run: Callable[..., Outcome], case: str, name: str) -> Callable[[Path], Outcome]:
    return lambda folder: run(case, folder, name)


ROWS = (
    Row(
        "bots", f"kill -9 of the real bot at a random time, {KILLS} times in one directory, then prove", "kills",
        full=500, sample=3, cases=numbered(KILLS), run=kill_chain,
        defects={
            "checkpoint before its ticks": _defect(kill_chain, "0+6", "checkpoint before its ticks"),
            "acknowledged before it is written": _defect(kill_chain, "0+6", "acknowledged before it is written"),
        },
    ),
    Row(
        "lock", "a second bot on a directory that is in use: refused", "starts",
        full=100, sample=1, cases=numbered(10), run=second_bots,
        defects={"no lock": _defect(second_bots, "0+1", "no lock")},
    ),
    Row(
        "modes", "files 0600 and folders 0700 under any umask, state and logs", "umasks",
        full=len(UMASKS), sample=1, cases=umask_cases, run=modes,
        defects={"open to all": _defect(modes, "0", "open to all")},
    ),
)  # fmt: skip
