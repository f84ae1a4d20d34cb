"""What an operator asks of a running bot: requests become inputs of the engine, and lines of the log."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from pathlib import Path

from tradingbot.engine.events import AnchorReset
from tradingbot.io.requests import BadRequest, Requested, RequestFolder
from tradingbot.io.streams import Control

__all__ = ["OperatorRequests"]

log = logging.getLogger(__name__)


class OperatorRequests:
    """Look for requests at each turn of a session."""

    def __init__(self, state_dir: Path) -> None:
        self._folder = RequestFolder(state_dir)

    def look(self, symbols: Collection[str], take: Callable[[Control], None]) -> None:
        """Do what is asked; `take` is handed the inputs, for `symbols` alone."""

        def handle(request: Requested | BadRequest) -> None:
            if isinstance(request, BadRequest):
                log.error("request %s is refused, and set aside as .bad: %s", request.path.name, request.why)
                return
            known = [symbol for symbol in dict.fromkeys(request.symbols) if symbol in symbols]
            unknown = [symbol for symbol in request.symbols if symbol not in symbols]
            for symbol in known:
                take(AnchorReset(symbol))
            log.warning(
                "anchor_reset symbols=%s who=%s@%s why=%s%s", ",".join(known) or "none", request.who, request.host,
                request.why, f" unknown={','.join(unknown)}" if unknown else "",
            )  # fmt: skip

        self._folder.take(handle)
