"""A bot of one's own on the embedded exchange, in a scratch home; it ends with whoever started it, however."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from tradingbot.errors import TradingBotError
from tradingbot.io.state_files import lock_owner

__all__ = ["OwnBot"]

START_S, STOP_S = 60.0, 30.0


class OwnBot:
    """Run a bot in its own process under a new temporary home, until `stop`."""

    def __init__(self, settings: Mapping[str, object]) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="tradingbot-"))
        words = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
        command = [sys.executable, "-m", "tradingbot", "--home", str(self.home), "--no-dashboard", *words]
        environ = {name: text for name, text in os.environ.items() if not name.startswith("MPL")}
        self._log = self.home / "stderr"
        with self._log.open("wb") as log:
            self._keeper = subprocess.Popen(  # noqa: S603  (our own interpreter, our own words)
                [sys.executable, "-m", "tradingbot.ops.watch.own_bot", *command],
                stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True, cwd=self.home, env=environ,
            )  # fmt: skip

    def wait(self, patience_s: float = START_S) -> None:
        """Wait until it has seen prices; raise TradingBotError, with the end of its log, where it has not."""
        end_s = time.monotonic() + patience_s
        while not self._has_prices():
            if self._keeper.poll() is not None or time.monotonic() > end_s:
                tail = self._log.read_text(errors="replace").strip().splitlines()[-3:]
                self.stop()
                raise TradingBotError(f"a bot of its own did not start: {' / '.join(tail) or 'it said nothing'}")
            time.sleep(0.05)

    def _has_prices(self) -> bool:
        try:
            return bool(json.loads((self.home / "state" / "status.json").read_bytes())["data"]["ticks"])
        except (OSError, ValueError, LookupError, TypeError):
            return False

    def stop(self) -> None:
        """Stop it cleanly, and remove its home; a second time does nothing."""
        if self._keeper.stdin is not None:
            with contextlib.suppress(OSError):
                self._keeper.stdin.close()
        try:
            self._keeper.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._keeper.kill()
            self._keeper.wait()
        if lock_owner(self.home / "state") is None:
            shutil.rmtree(self.home, ignore_errors=True)


def _keep(command: list[str]) -> int:
    """Run a command until it ends or nobody holds our stdin any more; return its exit code."""
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as child:  # noqa: S603  (OwnBot's words)

        def stop_when_alone() -> None:
            sys.stdin.buffer.read()
            child.terminate()

        threading.Thread(target=stop_when_alone, daemon=True).start()
        return child.wait()


if __name__ == "__main__":
    raise SystemExit(_keep(sys.argv[1:]))
