"""The checklist: a bot runs, it has come up, and no error that is not over has come since."""

from __future__ import annotations

import contextlib
import shutil
import time
from typing import Any

from tradingbot.io.saved import CHECKPOINT
from tradingbot.ops.checkup import Finding, Verdict
from tradingbot.ops.rollback.store import past_rollbacks
from tradingbot.ops.verify.log_lines import BAD, LogLine, iso
from tradingbot.ops.verify.scene import Look, Scene, has_begun

__all__ = ["STARTED", "started"]

STARTED = "started, no errors since"
PATIENCE_S = 12.0
SILENT_S = 150.0  # an error that is said once a minute while it lasts is over once it is not said for so long
SHOWN = 300  # characters of a line that status.json keeps

HEALED = {
    "less than MIN_FREE_MB": "there is room on the disk again",
    "settings are refused": "settings changed:",
    "degraded:": "works again",
}
"""What an error says while it lasts, and what a later line says when it is over."""
WRITTEN = {"status.json cannot be written": "status.json", "checkpoint cannot be written": CHECKPOINT}
"""What an error says that is over once its file has been written again."""


def started(scene: Scene) -> Finding:
    """See that a bot runs, that it has come up, and that nothing has gone wrong in it since."""
    bot = scene.bot
    if not bot.is_running:
        how = {"dead": f"it died: process {bot.pid} is gone", "stopped": "it was stopped", "none": "none has run here"}
        fix = "start it: tradingbot, with the bot's own --home and options"
        return Finding(STARTED, Verdict.FAILED, f"no bot runs ({how.get(bot.state, bot.state)})", bot.to_record(), fix)

    def is_up(look: Look) -> bool:
        return has_begun(look) or look.is_held_back

    look = scene.until(is_up, PATIENCE_S)
    state = str(look.bot.get("state", "starting"))
    since_ms = max(scene.started_ms, _last_change_ms(scene))
    lines = [line for line in scene.log(scene.started_ms) if line.is_bad or line.level == "WARNING"]
    earlier = [line for line in lines if line.is_bad and line.ts_ms < since_ms]
    lasting, over = _lasting([line for line in lines if line.ts_ms >= since_ms], scene)
    logged = {line.text[:SHOWN] for line in lines}
    lasting += [
        LogLine(0, one["level"], one["text"])
        for one in look.status.get("errors", ())
        if one["level"] in BAD and one["text"] not in logged
    ]
    evidence: dict[str, Any] = {
        **bot.to_record(), "state": state, "since": iso(since_ms), "errors": [_line(line) for line in lasting[:20]],
        "over": [_line(line) for line in over[:20]], "before_the_last_rollback": len(earlier),
    }  # fmt: skip
    who = f"process {bot.pid}, session {bot.sid}, up {_span(look.bot.get('uptime_s', 0))}"
    log = f"tradingbot doctor; its log is in {scene.log_folder}"
    if not is_up(look):
        return Finding(STARTED, Verdict.FAILED, f"it has not come up: {state} ({who})", evidence, log)
    if lasting:
        count = f"{len(lasting)} errors" if len(lasting) > 1 else "an error"
        says = f"{count} since {iso(since_ms)}, the last one: {lasting[-1].text[:200]}"
        fix = f'{log}\nonce it is understood: tradingbot restart --yes --why "..." begins a session without it'
        return Finding(STARTED, Verdict.FAILED, says, evidence, fix)
    notes = [f"{len(over)} errors that are over by now"] if over else []
    notes += [f"{len(earlier)} errors before the last rollback"] if earlier else []
    if state == "killed":
        why = (scene.state_dir / "KILL").read_text(errors="replace").strip()[:200] if _is_killed(scene) else ""
        notes.append(f"the kill switch is on ({why or 'kill switch'}): nothing is bought")
    if state == "starting":
        notes.append("the exchange holds it back: it has not begun yet")
    if notes:
        fix = "tradingbot arm, when it may buy again" if state == "killed" else log
        return Finding(STARTED, Verdict.WARNING, f"{state} ({who}); {'; '.join(notes)}", evidence, fix)
    return Finding(STARTED, Verdict.OK, f"{state} ({who}), no error in its log since", evidence)


def _is_killed(scene: Scene) -> bool:
    return (scene.state_dir / "KILL").is_file()


def _last_change_ms(scene: Scene) -> int:
    """Return when the last rollback, or undoing, had changed the settings (ms, wall clock), 0 without one."""
    return max(
        (int(s.done["adopted"].get("ts_ms", 0)) for s in past_rollbacks(scene.state_dir) if "adopted" in s.done),
        default=0,
    )


def _now_ms() -> int:
    return int(time.time() * 1000)


def _lasting(lines: list[LogLine], scene: Scene) -> tuple[list[LogLine], list[LogLine]]:
    """Return the errors that count, and those that are over: a later line, the disk or a file that is new says so."""
    lasting, over = list[LogLine](), list[LogLine]()
    for place, line in enumerate(lines):
        if not line.is_bad:
            continue
        word = next((healed for trouble, healed in HEALED.items() if trouble in line.text), None)
        healed = word is not None and any(_heals(line, later, word) for later in lines[place + 1 :])
        (over if healed or _is_over(line, scene) else lasting).append(line)
    return lasting, over


def _is_over(line: LogLine, scene: Scene) -> bool:
    for text, name in WRITTEN.items():
        if text in line.text:
            with contextlib.suppress(OSError):
                return (scene.state_dir / name).stat().st_mtime * 1000 > line.ts_ms
    if "less than MIN_FREE_MB" in line.text:
        return shutil.disk_usage(scene.state_dir).free >= scene.settings.MIN_FREE_MB * 1_000_000
    return "housekeeping:" in line.text and _now_ms() - line.ts_ms > SILENT_S * 1000


def _heals(trouble: LogLine, later: LogLine, word: str) -> bool:
    if word != "works again":
        return word in later.text
    return later.text.startswith(trouble.text.partition(" degraded:")[0] + " works again")


def _line(line: LogLine) -> str:
    return f"{iso(line.ts_ms)} {line.level} {line.text[:300]}"


def _span(seconds: float) -> str:
    whole = int(seconds)
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if whole >= 2 * size:
            return f"{whole // size} {unit}"
    return f"{whole} s"
