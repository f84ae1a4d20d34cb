"""Cleanups in words: what one would take, what it took, and what a restore puts back."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["nothing_text", "plan_text", "report_text", "restored_text", "restoring_text"]

Record = Mapping[str, Any]


def plan_text(plan: Record, state: str, archived: str = "") -> str:
    """Return what a cleanup would take; `archived` is the archive of one that goes on."""
    older = f", older than {_period(plan['older_than_s'])}" if plan["older_than_s"] else ""
    lines = [f"{state}: clean {' '.join(plan['kinds'])}{older}"]
    heads = ("", "items", "files", "MB", "oldest record (UTC)", "newest record (UTC)")
    rows = [heads]
    for row in plan["by_kind"]:
        times = (_utc(row["oldest_ms"]), _utc(row["newest_ms"])) if row["items"] else ("", "")
        rows.append((row["kind"], f"{row['items']:,}", f"{row['files']:,}", f"{row['bytes'] / 1e6:,.2f}", *times))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row_ in rows:
        cells = zip(row_, widths, strict=True)
        lines.append("  ".join(t.ljust(w) if i in (0, 4, 5) else t.rjust(w) for i, (t, w) in enumerate(cells)).rstrip())
    for row in plan["by_kind"]:
        lines += [f"stays  {row['kind']}: {count:,} {reason}" for reason, count in row["stays"].items()]
    lines += plan["says"]
    if archived:
        lines.append(f"it goes on: the archive {archived} is made; it is read again, and what is left is deleted")
    elif plan["archive_dir"] and plan["bytes"]:
        free = f"{plan['free_bytes'] / 1e6:,.0f} MB are free there"
        lines.append(f"archived first in {plan['archive_dir']} ({free}), read back and verified, then deleted")
    elif plan["bytes"]:
        lines.append("deleted without an archive: --archive keeps one")
    lines.append("journal, state files, settings and rollbacks are not touched")
    return _printable(lines)


def nothing_text(plan: Record, state: str) -> str:
    """Return why there is nothing to clean."""
    lines = [f"{state}: clean {' '.join(plan['kinds'])}: nothing to clean"]
    for row in plan["by_kind"]:
        lines += [f"stays  {row['kind']}: {count:,} {reason}" for reason, count in row["stays"].items()]
    return _printable(lines)


def report_text(report: Record, kinds: Sequence[str]) -> str:
    """Return what a cleanup did."""
    lines = [f"clean {' '.join(kinds)}: {report['files']:,} files deleted, {report['bytes'] / 1e6:,.2f} MB"]
    if report["archive"]:
        lines.append(f"archive {report['archive']}: {report['archived_files']:,} files, read back and verified")
        lines.append(f"to have them back: tradingbot clean --restore {report['archive']} --why ...")
    left = list(report["left"].items())
    lines += [f"left: {name}: {why}" for name, why in left[:20]]
    if len(left) > 20:
        lines.append(f"left: {len(left) - 20:,} more")
    if left:
        lines.append("the same command goes on with what is left")
    return _printable(lines)


def restoring_text(plan: Record) -> str:
    """Return what a restore would do."""
    facts = plan["facts"]
    made = f"{_utc(facts.get('made_ms'))} UTC by {facts.get('who')}@{facts.get('host')}: {facts.get('why')}"
    lines = [f"{plan['archive']}, verified; made {made}"]
    lines.append(
        f"puts back {plan['files']:,} files, {plan['bytes'] / 1e6:,.2f} MB; {plan['there']:,} are there, the same"
    )
    return _printable([*lines, *plan["says"]])


def restored_text(done: Record) -> str:
    """Return what a restore did."""
    lines = [f"put back {done['files']:,} files, {done['bytes'] / 1e6:,.2f} MB; {done['there']:,} were there, the same"]
    if done["files"]:
        lines.append("tradingbot fsck and tradingbot prove read them as before; the archive stays")
    return _printable(lines)


def _period(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds % size == 0:
            return f"{seconds / size:g}{unit}"
    return f"{seconds:g}s"


def _utc(ms: Any) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(ms / 1000))
    except (TypeError, ValueError, OverflowError, OSError):
        return "?"


def _printable(lines: Sequence[str]) -> str:
    return "\n".join("".join(c if c.isprintable() else "?" for c in line) for line in lines)
