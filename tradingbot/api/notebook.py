"""What every notebook begins and ends with: a kernel that fails loudly, and a verdict."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Iterable
from typing import Any

from tradingbot.errors import TradingBotError
from tradingbot.ops.checkup import Finding, Verdict, findings_text
from tradingbot.ops.report.page import FINDINGS_TYPE, PAGE_KEY, findings_table

__all__ = ["CheckFailedError", "conclude", "prepare_notebook"]

_dead: list[asyncio.Task[Any]] = []  # tasks that ended with an exception; some may have been awaited since


class CheckFailedError(TradingBotError):
    """Say which checks of a notebook failed, after its report is complete."""

    exit_code = 1


def prepare_notebook() -> None:
    """Prepare the kernel of a notebook, so that what fails in it fails loudly.

    A group of exceptions ends its cell as any other exception does, an error of this package is shown in one line, and
    background tasks are watched: `conclude` names those that died. Outside IPython it does nothing. Calling it again
    changes nothing.
    """
    try:
        from IPython import get_ipython
    except ImportError:
        return
    shell = get_ipython()
    if shell is None:
        return
    shell.set_custom_exc((Exception, BaseExceptionGroup), _show_error)
    _watch_tasks()


def _show_error(shell: Any, kind: type[BaseException], error: BaseException, trace: Any, tb_offset: Any = None) -> None:
    """Show an error, and have the cell fail by it.

    IPython prints an exception that is, or came after, a group, and tells the frontend nothing: nbmake would pass.
    """
    if _holds_group(error):
        frames = trace.tb_next if trace is not None else None  # the first one is IPython's own
        lines = traceback.format_exception(kind, error.with_traceback(frames), frames)
        shell._showtraceback(kind, error, "".join(lines).splitlines())
    elif isinstance(error, TradingBotError):
        shell._showtraceback(kind, error, [f"{kind.__name__}: {error}"])
    else:
        shell.showtraceback((kind, error, trace), tb_offset=tb_offset, running_compiled_code=True)


def _holds_group(error: BaseException | None) -> bool:
    """Return whether an exception is a group, or was raised while one was handled."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, BaseExceptionGroup):
            return True
        seen.add(id(error))
        error = error.__context__
    return False


def _watch_tasks() -> None:
    """Have every task that the running loop makes from now on be looked at when it ends."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return
    before = loop.get_task_factory()
    if getattr(before, "watches", False):
        return

    def make(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> Any:
        task = before(loop, coroutine, **options) if before else asyncio.Task(coroutine, loop=loop, **options)
        task.add_done_callback(_note)  # type: ignore[arg-type]
        return task

    make.watches = True  # type: ignore[attr-defined]
    loop.set_task_factory(make)


def _note(task: asyncio.Task[Any]) -> None:
    if _unheard(task):
        _dead.append(task)


def _unheard(task: asyncio.Task[Any]) -> bool:
    """Return whether a task has ended with an exception that nobody has asked for, as asyncio itself knows."""
    return bool(getattr(task, "_log_traceback", False))


def _dead_tasks() -> list[Finding]:
    """Return a failure for each background task that died without anybody awaiting it."""
    found = []
    for task in filter(_unheard, _dead):
        error = task.exception()
        assert error is not None
        frame = next(iter(traceback.extract_tb(error.__traceback__)[-1:]), None)
        where = f" in {frame.name}, line {frame.lineno}" if frame else ""
        says = f"{task.get_name()} died{where}: {type(error).__name__}: {error}"
        text = "await the task in a cell, so that its error stands where it was raised"
        found.append(Finding("background task", Verdict.FAILED, says, {"task": task.get_name()}, text))
    _dead.clear()
    return found


class _Conclusion:
    """Show findings: as a table in a notebook, in words elsewhere, and as JSON for the runner of reports."""

    def __init__(self, findings: list[Finding], answer: str) -> None:
        self._findings, self._answer = findings, answer

    def __repr__(self) -> str:
        return findings_text(self._findings)

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        records = [finding.to_record() for finding in self._findings]
        shown = {"text/plain": repr(self), "text/html": findings_table(records), FINDINGS_TYPE: records}
        return shown, {PAGE_KEY: {"answer": self._answer}}


def conclude(findings: Iterable[Finding], answer: str = "") -> None:
    """Show the checks that a notebook rests on; raise CheckFailedError where one failed. The last cell of each.

    A report begins with `answer`: what the notebook has found, in a word or a sentence. A background task that died,
    and that no cell has awaited, is one more failure.
    """
    rows = [*findings, *_dead_tasks()]
    conclusion = _Conclusion(rows, answer)
    try:
        from IPython import get_ipython
    except ImportError:
        get_ipython = None
    if get_ipython is not None and get_ipython() is not None:
        from IPython.display import display

        display(conclusion)
    else:
        print(conclusion)
    failed = [row.name for row in rows if not row.ok]
    if failed:
        raise CheckFailedError(f"failed: {', '.join(failed)}")
