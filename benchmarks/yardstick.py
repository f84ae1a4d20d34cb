"""The yardstick: what a bare Python loop needs for the least that such a bot could do."""

from __future__ import annotations

import random
from collections import deque


def walk(count: int, seed: int = 1, step_ms: int = 250) -> list[tuple[int, float]]:
    """Return a random walk of prices: (ts_ms, price)."""
    rng = random.Random(seed)
    price, points = 100.0, []
    for i in range(count):
        price *= 1 + rng.gauss(0, 2e-4)
        points.append((1_700_000_000_000 + i * step_ms, price))
    return points


def bare_loop(points: list[tuple[int, float]]) -> int:
    """Count the ticks 1.5 % under the peak of five minutes: a monotonic deque and one comparison."""
    highs: deque[tuple[int, float]] = deque()
    hits = 0
    for t, price in points:
        while highs and highs[-1][1] <= price:
            highs.pop()
        highs.append((t, price))
        cut = t - 300_000
        while highs[0][0] <= cut:
            highs.popleft()
        if price <= highs[0][1] * 0.985:
            hits += 1
    return hits
