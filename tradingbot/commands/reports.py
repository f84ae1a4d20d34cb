"""Notebooks as reports: run, listed, copied."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tradingbot.commands.arguments import Add, count, period_s
from tradingbot.commands.shared import answer, complain, from_here, home_of
from tradingbot.errors import SettingsError, UsageError

if TYPE_CHECKING:
    from tradingbot.ops.report.report import Place

__all__ = ["add_to", "notebooks", "report"]

KEEP = 50
TIMEOUT_S = 7200.0


def add_to(add: Add) -> None:
    """Add the commands of this module, with their arguments."""
    text = "run a notebook, and leave it executed with one HTML page that shows its verdict; or list such reports"
    command = add("report", report, text, "tradingbot report verify -p last_minutes=15")
    command.add_argument("name", nargs="?", metavar="NAME", help="a notebook of this version, or the path of one")
    text = "a parameter of the notebook; repeatable"
    command.add_argument("-p", dest="parameters", action="append", default=[], metavar="NAME=VALUE", help=text)
    text = "end it after so long, whatever it does (2h by default)"
    command.add_argument("--timeout", type=period_s, default=TIMEOUT_S, metavar="S", help=text)
    text = f"reports of each notebook that are kept ({KEEP} by default); older ones are removed"
    command.add_argument("--keep", type=count, default=KEEP, metavar="N", help=text)
    command.add_argument("--list", action="store_true", help="show the reports that there are, and write their index")
    text = "show the notebooks of this version with their parameters, or copy them into a folder of yours"
    command = add("notebooks", notebooks, text, "tradingbot notebooks copy mine")
    command.add_argument("action", nargs="?", choices=("copy",), metavar="copy", help="copy them")
    command.add_argument("folder", nargs="?", metavar="DIR", help="where to; nothing there is written over")
    command.add_argument("--list", action="store_true", help="show them, which it does anyway without copy")


def report(arguments: argparse.Namespace) -> int:
    """Run a notebook into a report, or list the reports that there are."""
    if arguments.list:
        return _list(arguments)
    if not arguments.name:
        from tradingbot.ops.report.notebooks import notebook_names

        raise UsageError(f"which notebook? there are {', '.join(notebook_names()) or 'none'}; or name a .ipynb file")
    if arguments.timeout <= 0:
        raise UsageError("--timeout takes more than 0 s")
    if arguments.config is not None:
        raise UsageError(
            "--config is not known to notebooks: they read tradingbot.toml of the --home; use --home or --set"
        )
    _need_jupyter()
    from tradingbot.ops.report.report import run_report
    from tradingbot.ui.report_text import finished_text

    place = _place(arguments)
    progress = _progress if sys.stderr.isatty() else None
    try:
        done = run_report(
            arguments.name, arguments.parameters, place,
            timeout_s=arguments.timeout, keep=arguments.keep, progress=progress,
        )  # fmt: skip
    finally:
        if sys.stderr.isatty():
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    shown = replace(done, folder=from_here(done.folder))
    answer(arguments, done.to_record(), finished_text(shown.to_record()))
    return done.exit_code


def _list(arguments: argparse.Namespace) -> int:
    from tradingbot.ops.report.report import reports_in
    from tradingbot.ui.report_text import reports_text

    folder = _place(arguments).report_dir
    records = [found.to_record() for found in reports_in(folder)]
    answer(arguments, {"folder": str(folder), "reports": records}, reports_text(records, str(from_here(folder))))
    return 0


def _need_jupyter() -> None:
    """Raise UsageError where what runs notebooks is not installed."""
    from importlib.util import find_spec

    missing = [name for name in ("papermill", "ipykernel", "nbconvert", "nbformat") if find_spec(name) is None]
    if missing:
        raise UsageError(
            f"{', '.join(missing)} cannot be imported: reports need what pip install 'tradingbot[all]' installs"
        )


def _place(arguments: argparse.Namespace) -> Place:
    """Return where to look and where to write; broken settings are said, and the defaults taken in their place."""
    from tradingbot.config import fingerprint, registry
    from tradingbot.io.overrides import read_settings
    from tradingbot.ops.report.report import Place

    state = arguments.state
    for assignment in arguments.parameters:  # a notebook's home, and state, are the command's
        name, _, value = assignment.partition("=")
        if name.strip() == "home" and value:
            arguments.home = value
            if Path(value, "stamp.json").is_file():  # a state directory, which some notebooks take as well
                arguments.home, arguments.state = str(Path(value).absolute().parent), str(Path(value).absolute())
        elif name.strip() == "state" and value:
            arguments.state = value
    home = home_of(arguments)
    environ = {**os.environ, "TRADINGBOT_HOME": str(home.path.absolute())}
    environ |= _as_environment(arguments)
    try:
        effective = read_settings(
            home, config=arguments.config, state=arguments.state, assignments=arguments.set, overrides=True
        )
    except SettingsError as error:
        complain(f"warning: {error}; going on with STATE_DIR and REPORT_DIR as they are by default")
        places = {name: home.path / str(registry()[name].default) for name in ("STATE_DIR", "REPORT_DIR")}
        return Place(home.path, places["STATE_DIR"], places["REPORT_DIR"], None, str(error), environ, state)
    settings = effective.settings
    report_dir = home.path / settings.REPORT_DIR
    return Place(home.path, effective.state_dir, report_dir, fingerprint(settings), None, environ, state)


def _as_environment(arguments: argparse.Namespace) -> dict[str, str]:
    """Return --set and --state as variables: notebooks read their settings by the same layers."""
    from tradingbot.io.home import split_assignment

    given: dict[str, str] = dict(split_assignment(text) for text in arguments.set)
    return given | ({"STATE_DIR": arguments.state} if arguments.state is not None else {})


def _progress(what: str, done: int, total: int) -> None:
    """Say on a terminal how far it is, in one line that is written over."""
    print(f"\r{what} {done} of {total} ", end="", file=sys.stderr, flush=True)


def notebooks(arguments: argparse.Namespace) -> int:
    """Show the notebooks of this version, or copy them."""
    from tradingbot.ops.report.notebooks import Copied, copy_notebooks, find_notebook, notebook_folder, notebook_names
    from tradingbot.ui.report_text import notebooks_text

    if arguments.action is None:
        records = [find_notebook(name).to_record() for name in notebook_names()]
        folder = str(notebook_folder())
        answer(arguments, {"folder": folder, "notebooks": records}, notebooks_text(records, folder))
        return 0
    if not arguments.folder:
        raise UsageError("copy them where to? name a folder, as in tradingbot notebooks copy mine")
    done = copy_notebooks(Path(arguments.folder))
    document: dict[str, Any] = {"copied": {str(path): what.value for path, what in done.items()}}
    answer(arguments, document, "\n".join(f"{path}: {what}" for path, what in done.items()))
    return 1 if Copied.KEPT in done.values() else 0
