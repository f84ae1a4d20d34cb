"""What works on recorded data."""

from __future__ import annotations

import argparse
from pathlib import Path

from tradingbot.commands.shared import answer, complain, print_json, print_text, settings_of
from tradingbot.errors import UsageError

__all__ = ["prove", "replay"]


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
    from tradingbot.ops import prove as ops
    from tradingbot.ui.progress import showing_progress

    folder = Path(arguments.folder) if arguments.folder else settings_of(arguments, overrides=False).state_dir
    with showing_progress() as progress:
        proof = ops.prove(folder, progress, arguments.last)
    answer(arguments, proof.to_record(), proof.text())
    return proof.exit_code
