"""What an operator asks of a running bot: requests become inputs of the engine, and lines of the log."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from tradingbot.engine.events import AnchorReset
from tradingbot.io.requests import BadRequest, DeleteTicks, Requested, RequestFolder, Restart
from tradingbot.io.streams import Control

__all__ = ["OperatorRequests"]

log = logging.getLogger(__name__)


class OperatorRequests:
    """Look for requests at each turn of a session.

    `restart` is called when the session is asked to begin anew, `delete_ticks` with the names of sealed segments that
    are to go.
    """

    def __init__(
        self,
        state_dir: Path,
        restart: Callable[[], None] = lambda: None,
        delete_ticks: Callable[[Sequence[str]], None] = lambda _: None,
    ) -> None:
        self._folder = RequestFolder(state_dir)
        self._restart, self._delete_ticks = restart, delete_ticks

    def look(self, symbols: Collection[str], take: Callable[[Control], None], sid: str = "") -> None:
        """Do what is asked of session `sid`; `take` is handed the inputs, for `symbols` alone."""

        def handle(request: Requested | BadRequest) -> None:
            if isinstance(request, BadRequest):
                log.error("request %s is refused, and set aside as .bad: %s", request.path.name, request.why)
                return
            if isinstance(request, Restart):
                if request.sid == sid:
                    log.warning("restart who=%s@%s why=%s", request.who, request.host, request.why)
                    self._restart()
                return  # one for an earlier session has come too late: that has ended
            if isinstance(request, DeleteTicks):
                if request.sid == sid:
                    what = f"delete_ticks segments={len(request.files)}"
                    log.warning("%s who=%s@%s why=%s", what, request.who, request.host, request.why)
                    self._delete_ticks(request.files)
                return
            known = [symbol for symbol in dict.fromkeys(request.symbols) if symbol in symbols]
            unknown = [symbol for symbol in request.symbols if symbol not in symbols]
            for symbol in known:
                take(AnchorReset(symbol))
            log.warning(
                "anchor_reset symbols=%s who=%s@%s why=%s%s", ",".join(known) or "none", request.who, request.host,
                request.why, f" unknown={','.join(unknown)}" if unknown else "",
            )  # fmt: skip

        self._folder.take(handle, sid)
