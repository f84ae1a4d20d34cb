"""What fsck has found, in words: the verdict first, what is wrong next, what is there last."""

from __future__ import annotations

from datetime import UTC, datetime

from tradingbot.io.jsonl import Damage
from tradingbot.io.streams import JOURNAL
from tradingbot.ops.record.findings import Ill, Report, StreamReport, counted

__all__ = ["report_text"]

SHOWN = 20  # problems, and files; --json names more

COLUMNS = ("stream", "series", "segments", "sealed", "records", "damaged", "gaps", "size", "a day")


def report_text(report: Report, repairable: int) -> str:
    """Return a report as people read it; `repairable` is how many files a repair would mend."""
    lines = [_verdict(report)]
    lines += [f"  {problem}" for problem in report.problems[:SHOWN]]
    total = sum(report.counts.values())
    if total > SHOWN:
        lines.append(f"  and {total - SHOWN:,} more (--json names up to 1,000)")
    if repairable and not report.running:
        lines.append(f'what can be done: tradingbot fsck {report.state_dir} --repair --why "..."')
    elif repairable:
        lines.append("what can be done: tradingbot stop, then tradingbot fsck --repair")
    if Ill.STATE_FILE.value in report.counts:
        lines.append("a state file that cannot be read: mend it, or move it aside, by hand; no repair touches it")
    lines += ["", *_table(report), "", *_span(report), *_numbers(report), *_room(report)]
    lines += _some("kept aside by a repair or a start, to delete when nobody wants it any more:", [*report.aside])
    lines += _some("beside that:", report.notes)
    return "\n".join(lines)


def _verdict(report: Report) -> str:
    running = ", a bot is running there" if report.running else ""
    total = sum(report.counts.values())
    if not total:
        return f"{report.state_dir}: clean{running}"
    lines = sum(report.counts[kind.value] for kind in Damage)
    others = (f"{kind} {count:,}" for kind, count in report.counts.items() if kind not in set(Damage))
    parts = [f"damage {lines:,}"] if lines else []
    return f"{report.state_dir}: {counted(total, 'problem')} ({', '.join([*parts, *others])}){running}"


def _table(report: Report) -> list[str]:
    rows = [COLUMNS, *(_row(stream.value, found) for stream, found in report.streams.items())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    fitted = ([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in rows)
    return ["  ".join(cells) for cells in fitted]


def _row(name: str, found: StreamReport) -> tuple[str, ...]:
    counts = (found.series, found.segments, found.sealed, found.records, found.damaged, found.gaps)
    daily = found.bytes_per_day
    return name, *(f"{count:,}" for count in counts), _size(found.bytes), "" if daily is None else _size(daily)


def _size(count: float) -> str:
    return f"{count / 1e6:,.1f} MB" if count >= 1e5 or not count else f"{count / 1e3:,.1f} kB"


def _span(report: Report) -> list[str]:
    spans = [span for found in report.streams.values() for span in found.spans.values()]
    if not spans:
        return ["nothing is recorded"]
    first, last = (_time(choose(at for span in spans for at in span)) for choose in (min, max))
    return [f"recorded: {first} to {last} UTC, {counted(len(report.sessions), 'session')}"]


def _time(ts_ms: int) -> str:
    try:
        return datetime.fromtimestamp(ts_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, ValueError, OSError):
        return f"{ts_ms} ms"


def _numbers(report: Report) -> list[str]:
    lines = []
    for sid, stretches in report.missing.items():
        session = report.sessions[sid]
        for why in dict.fromkeys(stretch.why for stretch in stretches):
            of_it = [stretch for stretch in stretches if stretch.why == why]
            count = sum(stretch.count for stretch in of_it)
            first, last = of_it[0].first, of_it[-1].last
            where = f"{first}" if first == last else f"{first} to {last}"
            told = "gap records name them" if session.gaps >= count else ""
            if not told and count <= session.gaps + report.lost:
                told = "as many lines are damaged or torn"
            said = why or told or "nothing says why"
            lines.append(f"session {sid}: {counted(count, 'input')} missing ({where}): {said}")
    return lines[:SHOWN] + ([f"and {len(lines) - SHOWN:,} more such stretches"] if len(lines) > SHOWN else [])


def _room(report: Report) -> list[str]:
    full, limit = report.days_left()
    lines = [f"disk: {report.free_bytes / 1e6:,.0f} MB free" + ("" if full is None else f", full in {_days(full)}")]
    if limit is not None and (full is None or limit < full):
        bound = f"STREAMS_MAX_GB = {report.limit_bytes / 1e9:g}"
        lines.append(f"{bound} comes first, in {_days(limit)}: then the oldest segments go")
    if report.streams[JOURNAL].bytes_per_day is not None:
        lines.append("a day is one of the records' own time")
    return lines


def _days(days: float) -> str:
    return f"{days * 24:.1f} hours" if days < 2 else f"{days:,.0f} days" if days < 3_650 else "more than ten years"


def _some(heading: str, names: list[str]) -> list[str]:
    rest = [f"  and {len(names) - SHOWN:,} more"] if len(names) > SHOWN else []
    return [heading, *(f"  {name}" for name in names[:SHOWN]), *rest] if names else []
