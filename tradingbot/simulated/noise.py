"""Noise that is a function of its words: no state to carry, so that a market can be asked about any time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

__all__ = ["Noise", "mix", "normal", "uniform"]

MASK = (1 << 64) - 1
KEPT = 4096  # normal numbers: symbols share the market's own


def mix(*words: int) -> int:
    """Return 64 well-mixed bits of the words (the finaliser of SplitMix64: Steele, Lea and Flood, 2014)."""
    state = 0
    for word in words:
        state = (state + word) * 0x9E3779B97F4A7C15 & MASK
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    state = (state ^ (state >> 27)) * 0x94D049BB133111EB & MASK
    return state ^ (state >> 31)


def uniform(*words: int) -> float:
    """Return a number in [0, 1) that the words decide."""
    return (mix(*words) >> 11) / (1 << 53)


@lru_cache(KEPT)
def normal(*words: int) -> float:
    """Return a standard normal number that the words decide (Box and Muller, 1958)."""
    bits = mix(*words)
    first, second = (bits >> 32) + 1, bits & 0xFFFFFFFF
    return math.sqrt(-2 * math.log(first / (1 << 32))) * math.cos(2 * math.pi * second / (1 << 32))


class Noise:
    """Give smooth noise of one wave length: normal numbers on a grid of time, joined by half waves of a cosine.

    It is the sum of sources, each a weight and the words that decide its numbers. The two grid points around the last
    time asked for are kept; that is a matter of speed alone.
    """

    __slots__ = ("_left", "_length_ms", "_place", "_right", "_sources", "_turn")

    def __init__(self, length_ms: int, sources: Sequence[tuple[float, tuple[int, ...]]]) -> None:
        self._sources = [(weight, (*words, length_ms)) for weight, words in sources]
        self._length_ms, self._turn = length_ms, math.pi / length_ms
        self._place: int | None = None
        self._left = self._right = 0.0

    def at(self, ms: int) -> float:
        """Return the noise at a time in milliseconds."""
        place = ms // self._length_ms
        if place != self._place:
            self._left = self._right if place - 1 == self._place else self._grid(place)
            self._right = self._grid(place + 1)
            self._place = place
        share = (1 - math.cos(self._turn * (ms - place * self._length_ms))) / 2
        return self._left * (1 - share) + self._right * share

    def _grid(self, place: int) -> float:
        return sum(weight * normal(*words, place) for weight, words in self._sources)
