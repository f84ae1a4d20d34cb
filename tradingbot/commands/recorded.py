"""What works on recorded data."""

from __future__ import annotations

import argparse
from pathlib import Path

from tradingbot.commands.arguments import STATE_HELP, Add, minutes
from tradingbot.commands.shared import (
    answer,
    complain,
    from_here,
    home_of,
    print_json,
    print_text,
    settings_of,
    state_named,
)
from tradingbot.errors import UsageError

__all__ = ["add_to", "compare", "prove", "replay"]

NAMED = 20  # damaged lines; all are counted


def add_to(add: Add) -> None:
    """Add the commands of this module, with their arguments."""
    command = add(
        "replay",
        replay,
        "run the engine over recorded market data",
        "tradingbot replay trades.parquet --set DROP_TRIGGER_VALUE=0.99 --set GLOBAL_TRADING=true --out result",
    )
    command.add_argument("data", nargs="+", metavar="FILE_OR_DIRECTORY", help="Parquet, CSV or JSONL")
    command.add_argument("--out", metavar="DIR", help="write decisions.jsonl, trades.jsonl and summary.json there")
    text = "run what was recorded through the engine again: equal?"
    command = add("prove", prove, text, "tradingbot prove build/run/state")
    command.add_argument("folder", nargs="?", metavar="STATE", help=STATE_HELP)
    text = "only the last minutes, from the last checkpoint before them"
    command.add_argument("--last", type=minutes, metavar="MIN", help=text)
    summary = "run what was recorded under two settings: what would have been decided otherwise?"
    example = "tradingbot compare build/run/state --set FEATURE_ANCHOR_ENABLED=false --last 60"
    command = add("compare", compare, summary, example)
    command.add_argument("folder", nargs="?", metavar="STATE", help=STATE_HELP)
    command.add_argument("--last", type=minutes, metavar="MIN", help=text)
    text = "a setting of theirs, the other side; repeatable (--set is ours; a side without any is as recorded)"
    command.add_argument("--against", metavar="KEY=VALUE", action="append", default=[], help=text)
    text = "write compare.json there, and each side's decisions.jsonl and trades.jsonl"
    command.add_argument("--out", metavar="DIR", help=text)


def replay(arguments: argparse.Namespace) -> int:
    """Run the engine over recorded market data."""
    from tradingbot.services.replay import FileSink, NullSink, run_files, scan_all
    from tradingbot.ui.progress import showing_progress

    settings = settings_of(arguments, overrides=False).settings
    try:
        sink = FileSink(Path(arguments.out)) if arguments.out else NullSink()
    except OSError as error:
        raise UsageError(f"cannot write to {arguments.out}: {error.strerror}") from None
    try:
        with showing_progress() as progress:
            files = scan_all(arguments.data, progress)
            for file in files:
                if file.complaint and any(other.rows for other in files):  # else the error says it
                    complain(f"warning: {file.complaint}")
            summary = run_files(files, settings, sink, progress)
    except UsageError:
        sink.discard()
        raise
    sink.finish(summary)
    if arguments.json:
        print_json(summary)
        return 0
    from tradingbot.ui.tables import summary_text

    print_text(summary_text(summary, settings))
    if arguments.out:
        print(f"\n{Path(arguments.out) / 'summary.json'}, with decisions.jsonl and trades.jsonl beside it")
    return 0


def prove(arguments: argparse.Namespace) -> int:
    """Run what was recorded through the engine again."""
    from tradingbot.ops.record import prove as ops
    from tradingbot.ui.progress import showing_progress

    folder = state_named(arguments.folder) if arguments.folder else settings_of(arguments, overrides=False).state_dir
    with showing_progress() as progress:
        proof = ops.prove(folder, progress, arguments.last)
    answer(arguments, proof.to_record(), proof.text())
    return proof.exit_code


def compare(arguments: argparse.Namespace) -> int:
    """Run what was recorded under two settings, and tell what would have been decided otherwise."""
    from tradingbot.io.overrides import read_assignments, read_settings
    from tradingbot.ops.record import compare as ops
    from tradingbot.ops.record.comparison import check_folder, write_folder
    from tradingbot.ui.progress import showing_progress

    ours, theirs = read_assignments(arguments.set), read_assignments(arguments.against, "--against")
    if not ours and not theirs:
        raise UsageError("nothing to compare: name a setting, as in tradingbot compare --set DROP_TRIGGER_VALUE=0.98")
    if arguments.folder:
        folder = state_named(arguments.folder)
    else:  # --set is none of this home's settings here
        home = home_of(arguments)
        folder = read_settings(home, config=arguments.config, state=arguments.state, overrides=False).state_dir
    out = Path(arguments.out) if arguments.out else None
    if out is not None:
        check_folder(out)
    with showing_progress() as progress:
        comparison = ops.compare(folder, ours, theirs, arguments.last, progress)
    for place in comparison.damaged[:NAMED]:
        complain(f"damaged: {place}")
    if comparison.damaged_lines > NAMED:
        complain(f"damaged: {comparison.damaged_lines:,} lines in all (tradingbot fsck {folder} names them)")
    text = comparison.text()
    if out is not None:
        text += f"\n\n{from_here(write_folder(out, comparison)[0])}, with both sides' decisions and trades below"
    answer(arguments, comparison.to_record(), text)
    return 0
