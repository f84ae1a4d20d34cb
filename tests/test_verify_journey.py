"""The nine-point checklist over the real command line: after a rollback GO, after a fault NO-GO by its name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import orjson

from tests.test_live import bot, call, status_of, wait_for
from tradingbot.config import FLAGS

PAUSES = ("--set", "TICKER_MAX_AGE_S=3600")  # a machine that pauses is no fault
LIVELY = ("--set", "EMBEDDED_SPEED=30", "--set", "EMBEDDED_SYMBOLS=3", "--set", "DROP_TRIGGER_VALUE=0.998", *PAUSES)
NINE = {
    "settings backed up": "ok",
    "flags as intended": "ok",
    "started, no errors since": "ok",
    "market data alive": "ok",
    "drop calculation right": "ok",
    "a trigger fires": "ok",
    "observing sends no order": "ok",
    "streams as the flags say": "ok",
    "data left behind": "ok",
}


def verified(home: Path, code: int) -> dict[str, dict[str, Any]]:
    """Verify over the real command; return the findings by name."""
    done = call(home, "verify", "--json", "--last", "5")
    assert done.returncode == code, done.stdout + done.stderr
    return {row["name"]: row for row in orjson.loads(done.stdout)["findings"]}


def test_after_a_rollback_every_point_of_the_checklist_holds_and_a_fault_is_named(tmp_path: Path) -> None:
    """All off and restarted: GO, nine points. A copy spoilt, a bot that is gone: NO-GO, exit 1, by name."""
    with bot(tmp_path, *LIVELY) as process:
        wait_for(lambda: status_of(tmp_path)["decisions"], process)
        assert call(tmp_path, "rollback", "all", "--restart", "--yes", "--why", "odd triggers").returncode == 0
        found = verified(tmp_path, 0)
        assert {name: found[name]["verdict"] for name in NINE} == NINE
        assert "all off, observing" in found["flags as intended"]["says"]
        assert not any(found["flags as intended"]["evidence"]["running"][flag] for flag in FLAGS)
        assert "legacy_peak" in found["a trigger fires"]["says"]
        assert "off, and they stand still" in found["streams as the flags say"]["says"]
        assert "tradingbot clean" in found["data left behind"]["says"]
        assert re.search(r"ticks [\d.]+ .B", found["data left behind"]["says"])

        (folder,) = (tmp_path / "state" / "rollbacks").glob("*/backup")
        copy = (folder / "checkpoint.json").read_bytes()
        (folder / "checkpoint.json").write_bytes(copy[: len(copy) // 2])
        found = verified(tmp_path, 1)
        assert "checkpoint.json: is damaged" in found["settings backed up"]["says"]
        assert [name for name, row in found.items() if row["verdict"] == "failed"] == ["settings backed up"]
        (folder / "checkpoint.json").write_bytes(copy)

        assert call(tmp_path, "rollback", "--undo", "--restart", "--yes", "--why", "well again").returncode == 0
        found = verified(tmp_path, 0)
        assert "all on" in found["flags as intended"]["says"]
        assert "recomputed from" in found["drop calculation right"]["says"]

        process.kill()
        process.wait()
        done = call(tmp_path, "verify")
        assert done.returncode == 1
        assert (
            f"FAILED         started, no errors since  no bot runs (it died: process {process.pid} is gone)"
            in done.stdout
        )
        assert "NO-GO: started, no errors since" in done.stdout
