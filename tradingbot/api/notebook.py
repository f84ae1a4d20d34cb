"""What every notebook begins and ends with: a kernel that fails loudly, and a verdict."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tradingbot.errors import TradingBotError
from tradingbot.ops.checkup import Finding, findings_text

__all__ = ["CheckFailedError", "conclude", "prepare_notebook"]


class CheckFailedError(TradingBotError):
    """Say which checks of a notebook failed, after its report is complete."""

    exit_code = 1


def prepare_notebook() -> None:
    """Prepare the kernel of a notebook: a group of exceptions ends its cell as any other; figures are readable.

    Outside IPython it does nothing. Calling it again changes nothing.
    """
    try:
        from IPython import get_ipython
    except ImportError:
        return
    shell = get_ipython()
    if shell is None:
        return
    shell.set_custom_exc((BaseExceptionGroup,), _show_group)


def _show_group(shell: Any, kind: type[BaseException], error: BaseException, trace: Any, tb_offset: Any = None) -> Any:
    """Show a group of exceptions and have the cell fail by its first one: papermill hangs on a group, nbmake passes."""
    shell.showtraceback((kind, error, trace), tb_offset=tb_offset)
    return None


def conclude(findings: Iterable[Finding]) -> None:
    """Show the checks that a notebook rests on; raise CheckFailedError where one failed. The last cell of each."""
    rows = list(findings)
    print(findings_text(rows))
    failed = [row.name for row in rows if not row.ok]
    if failed:
        raise CheckFailedError(f"failed: {', '.join(failed)}")
