"""Small notebooks for tests of what runs notebooks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

START = "import tradingbot as tb\n\ntb.prepare_notebook()"
IMPORTS = "from tradingbot.ops.checkup import Finding, Verdict\n"
END = IMPORTS + 'tb.conclude([Finding("disk", Verdict.OK, "12 GB are free", seconds=0.1)])'


def made(
    path: Path, *sources: str, parameters: str = "n: int = 1  # a number", end: str = END, **metadata: Any
) -> Path:
    """Write a notebook as ours are: title, parameters, the first call, cells of its own, the last call."""
    given = new_code_cell(parameters)
    given.metadata["tags"] = ["parameters"]
    own = [new_markdown_cell("## The part that matters"), *(new_code_cell(source) for source in sources)]
    cells = [new_markdown_cell(f"# Made for {path.stem}"), given, new_code_cell(START), *own, new_code_cell(end)]
    for index, cell in enumerate(cells):
        cell.id = str(index)
    kernel = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    notebook = new_notebook(
        cells=cells, metadata={"kernelspec": kernel, "language_info": {"name": "python"}} | metadata
    )
    nbformat.write(notebook, path)
    return path
