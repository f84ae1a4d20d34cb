"""Doctor: every diagnosis made in seconds, whatever is broken, with what to do; it begins by the standard library."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from tradingbot.io.home import Home
from tradingbot.ops.checkup import Check, Finding, Verdict, findings_text, run_checks
from tradingbot.ops.doctor import disk as doctor_disk
from tradingbot.ops.doctor import exchange as doctor_exchange
from tradingbot.ops.doctor import market as doctor_market
from tradingbot.ops.doctor import past as doctor_past
from tradingbot.ops.doctor import start as doctor_start
from tradingbot.ops.doctor import state as doctor_state
from tradingbot.ops.doctor.fixes import FIXES, Fix, FixResult, apply_fix, plan_fix
from tradingbot.ops.doctor.patient import Patient, meet

__all__ = ["FIXES", "DoctorReport", "Fix", "FixResult", "apply_fix", "diagnose", "plan_fix"]

ALL_S = 4.0  # for those who wait for others; the rest takes what it takes
BUNDLE = "tradingbot bundle"


@dataclass(frozen=True, slots=True)
class DoctorReport:
    """Hold what was found, and where; `seconds` is what all of it took."""

    home: str
    state: str
    findings: tuple[Finding, ...]
    seconds: float

    @property
    def failed(self) -> tuple[Finding, ...]:
        """Return what is wrong."""
        return tuple(each for each in self.findings if not each.ok)

    @property
    def exit_code(self) -> int:
        """Return 0 where nothing failed, else 1."""
        return 1 if self.failed else 0

    def to_record(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {
            "v": 1, "home": self.home, "state": self.state, "ok": not self.failed, "seconds": self.seconds,
            "findings": [each.to_record() for each in self.findings], "bundle": BUNDLE,
        }  # fmt: skip

    def text(self) -> str:
        """Return it in words: each finding, then what is wrong at a glance, last what to send."""
        warnings = [each.name for each in self.findings if each.verdict is Verdict.WARNING]
        total = f"{len(self.findings)} looked at in {self.seconds:.1f} s under {self.state}"
        if self.failed:
            total += f"; {len(self.failed)} FAILED: {', '.join(dict.fromkeys(each.name for each in self.failed))}"
        else:
            total += "; nothing failed"
        if warnings:
            total += f"; {len(warnings)} to look at: {', '.join(dict.fromkeys(warnings))}"
        rest = f"for a bug report: {BUNDLE} puts all of this, redacted, into one archive"
        plain = "".join(c if c.isprintable() else "?" for c in total)
        return f"{findings_text(self.findings)}\n\n{plain}\n{rest}"


def diagnose(
    home: Home,
    *,
    config: str | None = None,
    state: str | None = None,
    assignments: Iterable[str] = (),
    progress: Callable[[str], None] | None = None,
    environ: Mapping[str, str] | None = None,
) -> DoctorReport:
    """Look at everything that is known to go wrong; never raises, changes nothing, and takes seconds.

    `progress` is told the name of each diagnosis as it begins.
    """
    began_s = time.monotonic()
    imports = doctor_start.Imports(doctor_start.DEPENDENCIES)
    patient = meet(home, config, state, assignments, os.environ if environ is None else environ)
    probe = doctor_exchange.Probe(patient)

    def left_s() -> float:
        return max(began_s + ALL_S - time.monotonic(), 0.1)

    def told(checks: Iterable[tuple[str, Check]]) -> Iterator[tuple[str, Check]]:
        for name, check in checks:
            if progress is not None:
                progress(name)
            yield name, check

    checks = told(_checks(patient, imports, probe, left_s))
    findings = tuple(replace(finding, says=_short(finding.says)) for finding in run_checks(checks))
    probe.close()
    return DoctorReport(str(home.path), str(patient.state_dir), findings, round(time.monotonic() - began_s, 2))


def _short(text: str) -> str:
    return text if len(text) <= 600 else text[:597] + "..."


def _checks(
    patient: Patient, imports: doctor_start.Imports, probe: doctor_exchange.Probe, left_s: Callable[[], float]
) -> Iterator[tuple[str, Check]]:
    """Yield the diagnoses: those that nothing else rests on first, those that wait for others last."""
    yield "python", doctor_start.python_version
    yield "imported from", doctor_start.origins
    yield "versions", lambda: doctor_start.versions(doctor_start.find_lock_file())
    yield "settings", lambda: doctor_start.settings(patient)
    yield "overrides", lambda: doctor_start.overrides(patient)
    yield "state directory", lambda: doctor_state.state_directory(patient)
    yield "lock", lambda: doctor_state.lock(patient)
    yield "bot", lambda: doctor_state.bot(patient)
    yield "disk", lambda: doctor_disk.disk(patient)
    yield "writer", lambda: doctor_disk.writer(patient)
    yield "triggers", lambda: doctor_market.no_triggers(patient)
    yield "tickers", lambda: doctor_market.tickers(patient)
    yield "references", lambda: doctor_past.unexpected_triggers(patient)
    yield "anchors", lambda: doctor_past.anchors(patient)
    yield "warm start", lambda: doctor_past.warm_start(patient)
    yield "ports", lambda: doctor_state.ports(patient)
    yield "exchange", lambda: doctor_exchange.exchange(patient, probe, left_s())
    yield "clock", lambda: doctor_exchange.clock(patient, probe, left_s())
    yield "credentials", lambda: doctor_exchange.credentials(patient, probe, left_s())
    yield "packages", lambda: doctor_start.packages(imports, left_s())
