"""Small ways to make what can be cleaned, to clean it, and to see what became of it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.test_live import call
from tradingbot.cli import main
from tradingbot.io.home import Home
from tradingbot.io.overrides import Effective, read_settings
from tradingbot.io.sealing import seal
from tradingbot.io.segments import list_segments
from tradingbot.io.streams import FOLDERS
from tradingbot.ops.cleanup.cleanup import Plan, Report, execute, plan_clean

YES = ("--yes", "--why", "drill")
SMALL = ("--set", "MAX_FILE_MB=0.06", "--set", "EMBEDDED_SYMBOLS=2")


def recorded(home: Path) -> None:
    """Record 50 minutes in virtual time, in small segments, all sealed but the newest."""
    words = ("--virtual", "--duration", "3000", "--no-dashboard", *SMALL)
    done = call(home, *words)
    assert done.returncode == 0, done.stderr
    seal_past(home / "state")


def seal_past(state: Path) -> None:
    for folder in FOLDERS.values():
        segments = list_segments(state / folder)
        newest = {segment.series: segment for segment in segments}
        for segment in segments:
            if not segment.sealed and segment is not newest[segment.series]:
                seal(segment.path)


def copied(home: Path, to: Path) -> Path:
    shutil.copytree(home, to, dirs_exist_ok=True)
    return to


def settings(home: Path, **values: Any) -> Effective:
    assignments = [f"{name}={value}" for name, value in values.items()]
    return read_settings(Home(home, "test"), assignments=assignments, environ={})


def clean(home: Path, *kinds: str, archive: bool = True, **options: Any) -> Report:
    effective = settings(home)
    found = plan_clean(effective, kinds, "drill", archive=archive, **options)
    return execute(effective, found if isinstance(found, Plan) else found.plan)


def cli(home: Path, *words: str) -> int:
    return main([*words, "--home", str(home)])


def data(home: Path) -> dict[str, str]:
    """Return the SHA-256 of every file of the four streams, logs and reports, by its path below the home."""
    found = {}
    for folder in ("state/drop_windows", "logs", "reports"):
        for path in (home / folder).rglob("*"):
            if path.is_file() and not path.is_symlink():
                with contextlib.suppress(FileNotFoundError):  # sealed by a running bot since it was listed
                    found[str(path.relative_to(home))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def sealed(home: Path, kind: str) -> set[str]:
    return {path.name for path in (home / "state/drop_windows" / kind).glob("*.zst")}


def archives(home: Path) -> list[Path]:
    """Return all that lies in the archives' folder, hidden files too."""
    folder = home / "archives"
    return sorted(folder.iterdir()) if folder.is_dir() else []


def dying(job: Callable[[], object], at: int, places: list[tuple[Any, str]]) -> bool:
    """Run a job in a process of its own that dies at the `at`th call of one of some functions; return whether it did.

    It dies as by SIGKILL: nothing is unwound, nothing is flushed.
    """
    pid = os.fork()
    if pid == 0:
        left = [at]

        def counting(function: Callable[..., Any]) -> Callable[..., Any]:
            def counted(*words: Any, **options: Any) -> Any:
                left[0] -= 1
                if left[0] < 0:
                    os._exit(9)
                return function(*words, **options)

            return counted

        try:
            for owner, name in places:
                setattr(owner, name, counting(getattr(owner, name)))
            job()
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, 9), code
    return code == 9


def small_files(folder: Path, texts: dict[str, bytes]) -> Iterator[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / name).write_bytes(text)
        yield folder / name
