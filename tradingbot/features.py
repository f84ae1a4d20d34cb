"""The feature flags: what each takes back, what then still works, and where its code and tests lie."""

from __future__ import annotations

import msgspec

__all__ = ["FLAGS", "RETIRED", "Flag"]


class Flag(msgspec.Struct, frozen=True, kw_only=True):
    """Describe a feature that can be taken back by its flag, while the bot runs or at its next start."""

    name: str
    feature: str
    off_means: str
    legacy: str  # what does the work in its place
    keeps: str  # what works on while it is off
    modules: tuple[str, ...]
    tests: tuple[str, ...]
    since: str
    restart: bool = False


RETIRED: frozenset[str] = frozenset()
"""Names of flags that are gone: none is ever used again, for an old overrides file may still hold it."""

FLAGS: dict[str, Flag] = {
    flag.name: flag
    for flag in (
        Flag(
            name="FEATURE_ANCHOR_ENABLED",
            feature="anchor",
            off_means="the legacy bot: drops are measured from the window peak, and no anchor is clamped or kept",
            legacy="market/drop_triggers.py: reference_source gives legacy_peak",
            keeps="windows, triggers, entries and exits; anchors rest, and begin anew when it is on again",
            modules=("market/anchor_manager.py", "io/saved.py"),
            tests=("test_anchor_manager.py",),
            since="0.1.0",
        ),
        Flag(
            name="FEATURE_PERSIST_STREAMS",
            feature="persistence",
            off_means="the four streams (ticks, snapshots, windows, anchors) are flushed, sealed, and write nothing",
            legacy="services/recorder.py writes the journal alone",
            keeps="the journal, status.json, and the checkpoint, which then holds the windows too",
            modules=("io/jsonl.py", "io/stream_writer.py", "io/sealing.py"),
            tests=("test_jsonl_writer.py", "test_streams.py"),
            since="0.1.0",
        ),
        Flag(
            name="FEATURE_RETRY_BACKOFF",
            feature="retry",
            off_means="no waiting a symbol: each is asked at every poll",
            legacy="services/market_data.py polls as the old bot did",
            keeps="guards, bans (Retry-After), the bound on connects a minute",
            modules=("services/market_data.py",),
            tests=("test_market_data.py",),
            since="0.1.0",
        ),
        Flag(
            name="FEATURE_WARMSTART_TICKS",
            feature="warmstart",
            off_means="every start is cold: windows, sessions and triggers begin anew",
            legacy="services/warm_start.py takes over what was bought, and the anchors of anchors.json",
            keeps="positions, pending orders, cash, the counters of every rule, anchors",
            modules=("services/warm_start.py",),
            tests=("test_warmstart_integration.py", "test_restarts.py"),
            since="0.1.0",
            restart=True,
        ),
    )
}
