"""Buy signals: what the engine decided, said in the lines that operators have always grepped for."""

from __future__ import annotations

import logging
from collections import deque
from typing import Any

from tradingbot.engine.events import Decision, ExitDecided, Filled, Output, Trade, to_record

__all__ = ["BuySignalService"]

log = logging.getLogger(__name__)

KEPT = 20


class BuySignalService:
    """Log each decision, fill, exit and trade, and keep the latest decisions for whoever looks."""

    def __init__(self) -> None:
        self.decisions: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self.triggers = 0
        self.triggers_by_symbol: dict[str, int] = {}

    def take(self, outputs: tuple[Output, ...]) -> None:
        """Take in what answers one input."""
        for output in outputs:
            if isinstance(output, Decision):
                self._decided(output)
            elif isinstance(output, Filled):
                log.info(
                    "FILL symbol=%s side=%s qty=%.8g price=%.8g fee=%.4g cash=%.2f id=%s",
                    output.symbol, output.side, output.qty, output.price, output.fee, output.cash, output.decision_id,
                )  # fmt: skip
            elif isinstance(output, ExitDecided):
                log.info(
                    "EXIT symbol=%s reason=%s price=%.8g entry=%.8g id=%s",
                    output.symbol, output.reason, output.price, output.entry, output.decision_id,
                )  # fmt: skip
            elif isinstance(output, Trade):
                log.info(
                    "TRADE symbol=%s pnl=%.4f reason=%s id=%s",
                    output.symbol, output.pnl, output.reason, output.decision_id,
                )  # fmt: skip

    def _decided(self, d: Decision) -> None:
        self.triggers += 1
        self.triggers_by_symbol[d.symbol] = self.triggers_by_symbol.get(d.symbol, 0) + 1
        self.decisions.append(to_record(d))
        why = f" reasons={','.join(d.reasons)}" if d.reasons else ""
        log.info(
            "BUY TRIGGER symbol=%s last=%.8g drop_pct=%.3f reference=%.8g source=%s threshold=%.8g mode=%d "
            "outcome=%s%s id=%s",
            d.symbol, d.last, d.drop_pct, d.reference, d.reference_source, d.threshold, d.mode, d.outcome.value, why,
            d.decision_id,
        )  # fmt: skip
