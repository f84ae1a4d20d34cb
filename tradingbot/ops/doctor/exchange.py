"""The exchange: does it answer, whose clock is off, does it know our credentials, and what may they do."""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from tradingbot.ops.checkup import Finding, Verdict
from tradingbot.ops.doctor.market import log_tail
from tradingbot.ops.doctor.patient import PACKAGE, UNMENDED, Patient, number

__all__ = ["SECRETS", "Probe", "clock", "credentials", "exchange", "find_credentials"]

SECRETS = {"key": "TRADINGBOT_API_KEY", "secret": "TRADINGBOT_API_SECRET", "password": "TRADINGBOT_API_PASSWORD"}
"""What credentials are called in the environment, and by the same names under the keyring's service `tradingbot`."""

TROUBLES = {
    "banned": ("asks to be left alone", "wait for as long as it says; then a longer POLL_S, or fewer SYMBOLS"),
    "maintenance": (
        "answers, and is in trouble of its own or in maintenance",
        "wait: the bot tries again by itself; the exchange's status page says for how long",
    ),
    "unreachable": (
        "cannot be reached",
        "is this machine on the network, does it resolve names, is a proxy or a firewall in the way?",
    ),
    "unknown": ("is no exchange", "tradingbot set EXCHANGE=... (an id of ccxt's), then restart"),
}
ODD = ("answers something that is no answer", "is a proxy, or another program, on that address? look with curl")
TIMEOUT_S = 2.0
KEYRING_S = 0.7  # some ask a person to unlock them
OFF_MS, WRONG_MS = 1_000.0, 5_000.0  # of the system clock; a ticker further ahead is rejected
AT = re.compile(r"embedded exchange at (http://127\.0\.0\.1:\d{1,5})$")


def find_credentials(environ: Mapping[str, str]) -> dict[str, str]:
    """Return key, secret and password as far as they are set: in the environment, else in the keyring."""
    found = {word: environ[name] for word, name in SECRETS.items() if environ.get(name)}
    if found:
        return found

    def look() -> None:
        try:
            import keyring
        except Exception:  # noqa: BLE001  (it is no dependency: whoever uses it has it)
            return
        try:
            found.update({w: text for w, n in SECRETS.items() if (text := keyring.get_password("tradingbot", n))})
        except Exception:  # noqa: BLE001  (a keyring that is locked, or has no backend)
            return

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    thread.join(KEYRING_S)
    return dict(found)


class Probe:
    """Ask an exchange from a process of its own, begun at once and looked at later.

    The embedded one is asked for its time by the standard library alone; ccxt is asked where credentials are to be
    tried, and for any other exchange. While the running bot is held back nobody asks.
    """

    def __init__(self, patient: Patient) -> None:
        self._patient = patient
        self.exchange = str(patient.setting("EXCHANGE"))
        self.url = self._url() if self.exchange == "embedded" else None
        self.secrets = find_credentials(patient.environ)
        self._process: subprocess.Popen[str] | None = None
        self._answer: dict[str, Any] = {}
        until_ms = number(patient.data.get("held_back_until_ms"), 0)
        self.held_back_s = max(until_ms - self._now_ms(), 0) / 1000 if patient.is_running and until_ms else 0.0
        asks = self.exchange != "embedded" or (self.url is not None and bool(self.secrets))
        if asks and not patient.is_unmended and not self.held_back_s:
            self._begin()

    def _now_ms(self) -> int:
        return self._patient.now_ms()

    def _url(self) -> str | None:
        """Return where the embedded exchange listens: as set, else as the running bot's log tells it."""
        url = str(self._patient.setting("EMBEDDED_URL"))
        if url:
            return url if re.fullmatch(r"http://(127\.0\.0\.1|localhost):\d{1,5}/?", url) else None
        if not self._patient.is_running:
            return None
        for path in sorted(self._patient.log_dir.glob("trading_bot_*.log"), reverse=True)[:2]:
            try:
                lines = path.read_text(errors="replace").splitlines()
            except OSError:
                continue
            for line in reversed(lines):
                match = AT.search(line)
                if match:
                    return match[1]
        return None

    def _begin(self) -> None:
        question = {
            "exchange_id": self.exchange, "url": self.url, "timeout_s": TIMEOUT_S, "credentials": self.secrets or None,
        }  # fmt: skip
        folder = str(PACKAGE.parent)
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115  (read when it has ended)
        environ = {name: text for name, text in os.environ.items() if name not in SECRETS.values()}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tradingbot.exchange.probe"],
            stdin=subprocess.PIPE, stdout=self._said, stderr=subprocess.DEVNULL, text=True,
            env=environ | {"PYTHONPATH": os.pathsep.join(filter(None, (folder, os.environ.get("PYTHONPATH"))))},
        )  # fmt: skip
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question))
        self._process.stdin.close()

    def asked(self, timeout_s: float) -> dict[str, Any]:
        """Return what ccxt was told, waiting so long for it at most; empty where it is not asked."""
        if self._process is not None:
            self._answer = self._wait(self._process, timeout_s)
            self.close()
        return self._answer

    def _wait(self, process: subprocess.Popen[str], timeout_s: float) -> dict[str, Any]:
        try:
            process.wait(max(timeout_s, 0.0))
        except subprocess.TimeoutExpired:
            return {"kind": "unreachable", "says": f"no answer in {timeout_s:.1f} s"}
        self._said.seek(0)
        try:
            found = json.loads(self._said.read())
        except ValueError:
            return {"kind": "odd", "says": "ccxt could not be asked"}
        return found if isinstance(found, dict) else {}

    def close(self) -> None:
        """Wait for nothing more."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._said.close()
            self._process = None

    def embedded(self) -> dict[str, Any]:
        """Return what the embedded exchange answers when it is asked for its time."""
        assert self.url is not None
        began_s = time.time()
        try:
            with urllib.request.urlopen(f"{self.url.rstrip('/')}/api/v3/time", timeout=TIMEOUT_S) as answer:  # noqa: S310  (an address of this machine)
                facts = json.loads(answer.read(10_000))
                return {
                    "kind": "answers",
                    "time_ms": int(facts["serverTime"]),
                    "took_ms": round((time.time() - began_s) * 1000),
                }
        except urllib.error.HTTPError as error:
            kind = "banned" if error.code in (418, 429) else "maintenance" if error.code >= 500 else "odd"
            wait = error.headers.get("Retry-After")
            return {"kind": kind, "says": f"it answers {error.code}" + (f", Retry-After {wait:.20} s" if wait else "")}
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = getattr(error, "reason", error)
            kind = "unreachable" if isinstance(error, OSError) else "odd"
            return {"kind": kind, "says": f"{type(reason).__name__}: {reason}"[:160]}


def exchange(patient: Patient, probe: Probe, timeout_s: float) -> Finding:
    """Say whether the exchange answers, and if not, whether it is the line, a ban, or its own trouble."""
    name = "exchange"
    if probe.held_back_s:
        speed = max(number(patient.bot.get("speed"), 1), 1e-9)
        says = f"{probe.exchange} asked to be left alone (429 or 418) for another {probe.held_back_s / speed:.0f} s: nobody asks it meanwhile"  # noqa: E501
        fix = "wait; if it comes again: a longer POLL_S, fewer SYMBOLS, and see what else uses this address"
        return Finding(name, Verdict.FAILED, says, {"held_back_s": probe.held_back_s / speed}, fix)
    if probe.exchange == "embedded" and probe.url is None:
        says = (
            "the bot brings its own, while it runs"
            if not patient.setting("EMBEDDED_URL")
            else "EMBEDDED_URL is no address (ports)"
        )
        return Finding(name, Verdict.NOT_APPLICABLE, says)
    if probe.exchange == "embedded":
        found = probe.embedded()
    elif patient.is_unmended:
        return Finding(name, Verdict.NOT_APPLICABLE, f"{probe.exchange} {UNMENDED}")
    else:
        found = probe.asked(timeout_s)
    where = f"{probe.exchange}{f' at {probe.url}' if probe.url else ''}"
    says = str(found.get("says", ""))
    if found.get("kind") == "answers":
        return Finding(name, Verdict.OK, f"{where} answers in {number(found.get('took_ms'), 0):.0f} ms", found)
    words, fix = TROUBLES.get(str(found.get("kind")), ODD)
    return Finding(name, Verdict.FAILED, f"{where} {words}: {says}", found, fix)


def clock(patient: Patient, probe: Probe, timeout_s: float) -> Finding:
    """Hold the clock against the exchange's, else against the ages of recorded ticks; tell where it was set."""
    name = "clock"
    steps = [line for line in log_tail(patient) if " clock_step " in line]
    evidence: dict[str, Any] = {"steps": len(steps)}
    fix = "set it by the network: timedatectl set-ntp true, or chronyc makestep"
    ahead_ms: float | None = None
    if probe.exchange == "embedded":
        by = "the embedded exchange's own time goes"
    elif probe.held_back_s or patient.is_unmended or (theirs := probe.asked(timeout_s).get("ahead_ms")) is None:
        ahead_ms = _recorded_ms(patient)
        by = "no ticks are recorded that tell" if ahead_ms is None else "by the newest recorded ticks"
    else:
        ahead_ms, by = -number(theirs, 0), f"by {probe.exchange}'s time"
    evidence["ahead_ms"] = ahead_ms
    if ahead_ms is not None and abs(ahead_ms) > OFF_MS:
        word = "ahead" if ahead_ms > 0 else "behind"
        says = f"this machine's clock is {abs(ahead_ms) / 1000:.1f} s {word}, {by}"
        verdict = Verdict.FAILED if abs(ahead_ms) > WRONG_MS else Verdict.WARNING
        return Finding(name, verdict, says, evidence, fix)
    if steps:
        says = f"it was set {len(steps)} times in this session, or the machine slept; last: {steps[-1][:100]}"
        return Finding(name, Verdict.WARNING, says, evidence, fix)
    if ahead_ms is None:
        return Finding(name, Verdict.NOT_APPLICABLE, f"{by}; no step of this machine's in the log", evidence)
    return Finding(name, Verdict.OK, f"{abs(ahead_ms):.0f} ms off, {by}", evidence)


def _recorded_ms(patient: Patient) -> float | None:
    """Return how far receipts are ahead of the exchange's own times in the newest tick of each symbol (ms, median)."""
    if patient.is_unmended:
        return None
    from tradingbot.io.jsonl_read import read_jsonl_tail
    from tradingbot.io.segments import names_by_series
    from tradingbot.io.streams import FOLDERS, Stream

    folder, found = patient.state_dir / FOLDERS[Stream.TICKS], []
    for series in list(names_by_series(folder))[:20]:
        for record in read_jsonl_tail(folder, series, 5):
            age = record.get("feed_age_ms")
            if age is None and isinstance(record.get("recv_ms"), int) and record["recv_ms"] != record["ts_ms"]:
                age = record["recv_ms"] - record["ts_ms"]
            if isinstance(age, int):
                found.append(age)
    return statistics.median(found) if found else None


def credentials(patient: Patient, probe: Probe, timeout_s: float) -> Finding:
    """Say whether the exchange takes the credentials, and whether they could empty the account."""
    name, set_ = "credentials", ", ".join(sorted(probe.secrets))
    if not probe.secrets:
        return Finding(name, Verdict.NOT_APPLICABLE, "none are set: watching needs none")
    if patient.is_unmended:
        return Finding(name, Verdict.NOT_APPLICABLE, f"they {UNMENDED}")
    if "key" not in probe.secrets or "secret" not in probe.secrets:
        fix = f"set both {SECRETS['key']} and {SECRETS['secret']}, or neither"
        return Finding(name, Verdict.FAILED, f"only {set_} is set: a key takes its secret", fix=fix)
    found = probe.asked(timeout_s)
    says = str(found.get("says", ""))
    if found.get("credentials") == "wrong":
        fix = "make a new key there, or bind the key to this machine's address; the secret is shown only once"
        return Finding(name, Verdict.FAILED, f"{probe.exchange} refuses them: {says}", fix=fix)
    if found.get("credentials") != "ok":
        why = says or "it was not asked"
        return Finding(
            name, Verdict.NOT_APPLICABLE, f"{set_} are set; whether {probe.exchange} takes them is not known: {why}"
        )
    if found.get("withdraws"):
        says = "they can WITHDRAW: whoever gets hold of them can empty the account"
        fix = "take that permission from the key at the exchange, and bind it to this machine's address"
        return Finding(name, Verdict.FAILED, says, {"withdraws": True}, fix)
    if found.get("withdraws") is None:
        says = f"{probe.exchange} takes them; whether they can withdraw cannot be asked there"
        return Finding(
            name,
            Verdict.WARNING,
            says,
            {"withdraws": None},
            "look at the key's page there: it must not be able to withdraw",
        )
    return Finding(name, Verdict.OK, f"{probe.exchange} takes them, and they cannot withdraw", {"withdraws": False})
