"""An operator's night over the real commands: a disk fills, a feature goes, room is made, and all of it is undone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.crash.machine import no_mounts, tmpfs
from tests.test_live import bot, call, status_of, wait_for

SETTINGS = """\
EMBEDDED_SPEED = 60
EMBEDDED_SYMBOLS = 4
MAX_FILE_MB = 0.02
MIN_FREE_MB = 20
DROP_TRIGGER_VALUE = 0.998
"""
WHY = ("--why", "the disk is full", "--yes")


def says(home: Path, *words: str, code: int = 0) -> dict[str, Any]:
    """Run a command; return the document that it prints."""
    done = call(home, *words, "--json")
    assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def by_name(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {finding["name"]: finding for finding in document["findings"]}


@pytest.mark.skipif(no_mounts() != "", reason=no_mounts() or "-")
def test_a_night_with_a_full_disk_ends_as_it_began(tmp_path: Path) -> None:
    """Seen, taken back, made room for, verified, undone and proved; nothing that was decided is in doubt."""
    archives = tmp_path / "other"
    archives.mkdir()
    with tmpfs(tmp_path / "home", "size=80m,mode=700") as home:
        (home / "tradingbot.toml").write_text(SETTINGS)
        with bot(home) as process:
            ticks = home / "state" / "drop_windows" / "ticks"
            wait_for(lambda: len(list(ticks.glob("*.zst"))) > 12 and status_of(home)["decisions"], process, 120)
            wait_for(lambda: call(home, "clean", "ticks").returncode == 2, process, 120)  # a plan: some may go by now

            filler = home / "filler"
            filler.write_bytes(b"\1" * (50 << 20))
            wait_for(lambda: status_of(home)["streams"]["ticks"]["state"] == "off", process, 120)
            assert "stop: less than MIN_FREE_MB" in (home / "stderr").read_text()
            assert process.poll() is None
            seen = by_name(says(home, "doctor", code=1))
            assert seen["disk"]["verdict"] == "failed"
            assert seen["disk"]["profile"] == "persistence"

            report = says(home, "rollback", "persistence", *WHY)["report"]
            assert report["state"] == "done"
            assert by_name(says(home, "verify"))["streams as the flags say"]["verdict"] == "ok"

            before = {path.name: path.stat().st_size for path in ticks.glob("*.zst")}
            cleaned = says(home, "clean", "ticks", "--archive", "--archive-to", str(archives), *WHY)["report"]
            assert cleaned["exit_code"] == 0
            assert set(before) > {path.name for path in ticks.glob("*.zst")}
            (archive,) = archives.glob("ticks_*.tar.zst")
            filler.unlink()

            verified = says(home, "verify", "--why", "after the full disk")
            assert verified["verdict"] == "GO"
            assert {row["name"] for row in verified["findings"] if row["verdict"] == "failed"} == set()

            assert says(home, "rollback", "--undo", *WHY)["report"]["state"] == "done"
            wait_for(lambda: all(status_of(home)["flags"].values()), process, 120)
            heard = status_of(home)["streams"]["ticks"]["records"]
            wait_for(lambda: status_of(home)["streams"]["ticks"]["records"] > heard, process, 120)
            says(home, "prove")
            says(home, "clean", "--restore", str(archive), *WHY)
            assert before.items() <= {path.name: path.stat().st_size for path in ticks.glob("*.zst")}.items()
            says(home, "stop")
            assert process.wait(120) == 0
        proof = says(home, "prove")
        assert {session["verdict"] for session in proof["sessions"]} == {"equal"}
        assert by_name(says(home, "verify", code=1))["started, no errors since"]["verdict"] == "failed"  # none runs now
