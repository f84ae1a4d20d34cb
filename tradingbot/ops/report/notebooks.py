"""The notebooks that come with the package, or that a path names: found, read without running anything, copied."""

from __future__ import annotations

import difflib
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import tradingbot
from tradingbot.errors import UsageError
from tradingbot.ops.report.parameters import Parameter, read_parameters

__all__ = [
    "Copied",
    "Notebook",
    "checkout",
    "copy_notebooks",
    "find_notebook",
    "import_nbformat",
    "notebook_folder",
    "notebook_names",
]

MAX_BYTES = 50_000_000
KERNEL = "python3"


@dataclass(frozen=True, slots=True)
class Notebook:
    """Hold a notebook that can be run: its name, where it is, its title, its parameters, and itself as JSON."""

    name: str
    path: Path
    title: str
    parameters: Mapping[str, Parameter]
    content: dict[str, Any]

    def to_record(self) -> dict[str, Any]:
        """Return a JSON object, without the content."""
        parameters = {name: parameter.to_record() for name, parameter in self.parameters.items()}
        return {"name": self.name, "path": str(self.path), "title": self.title, "parameters": parameters}


def checkout() -> Path | None:
    """Return the root of the checkout that this package runs from, None where it is installed."""
    root = Path(tradingbot.__file__).resolve().parent.parent
    return root if (root / "pyproject.toml").is_file() else None


def notebook_folder() -> Path:
    """Return where the notebooks of this version are: in its checkout, else in the package itself."""
    root = checkout()
    if root is not None and (root / "notebooks").is_dir():
        return root / "notebooks"
    return Path(tradingbot.__file__).resolve().parent / "notebooks"


def notebook_names(folder: Path | None = None) -> list[str]:
    """Return the names of the notebooks in a folder, by default of those of this version."""
    folder = notebook_folder() if folder is None else folder
    return sorted(path.stem for path in folder.glob("*.ipynb") if not path.name.startswith("."))


def find_notebook(name: str) -> Notebook:
    """Return the notebook of a name, or of a path that ends in .ipynb; raise UsageError if none can be run."""
    path = Path(name) if name.endswith(".ipynb") else notebook_folder() / f"{name}.ipynb"
    known = notebook_names()
    try:
        is_there = (name.endswith(".ipynb") or name in known) and path.is_file()
    except (OSError, ValueError):
        is_there = False
    if not is_there:
        near = difflib.get_close_matches(name[:80], known, 1, 0.5)
        names = f"there are {', '.join(known)}" if known else "this version brings none"
        hint = f"did you mean {near[0]}?" if near else f"{names}; any other is named by its path, as in mine/x.ipynb"
        raise UsageError(f"there is no notebook {name:.80}: {hint}")
    try:
        return _read(path)
    except UsageError as error:
        raise UsageError(f"{path} cannot be run: {error}") from None


def _read(path: Path) -> Notebook:
    """Return a notebook, checked as far as that goes without running it; raise UsageError."""
    if path.stat().st_size > MAX_BYTES:
        raise UsageError(f"it is larger than {MAX_BYTES:,} bytes")
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UsageError(f"it is no notebook: {error}") from None
    if not isinstance(content, dict) or content.get("nbformat") != 4 or not isinstance(content.get("cells"), list):
        raise UsageError("it is no notebook of format 4")
    try:
        cells = [
            (cell["cell_type"], "".join(cell["source"]), cell["metadata"].get("tags", [])) for cell in content["cells"]
        ]
        kernel = content["metadata"].get("kernelspec", {}).get("name")
    except (KeyError, TypeError, AttributeError):
        raise UsageError("its cells are none") from None
    if kernel != KERNEL:
        raise UsageError(f"it is for the kernel {kernel!r:.80}, and reports run on {KERNEL}")
    tagged = [source for kind, source, tags in cells if kind == "code" and "parameters" in tags]
    if len(tagged) > 1:
        raise UsageError("it has more than one cell with the tag parameters")
    titles = [
        line[2:].strip()
        for kind, source, _ in cells
        if kind == "markdown"
        for line in source.splitlines()[:1]
        if line.startswith("# ")
    ]
    parameters = read_parameters(tagged[0]) if tagged else {}
    return Notebook(path.stem, path, titles[0] if titles else "", parameters, content)


def import_nbformat() -> Any:
    """Import nbformat, without what its schema checker would take more than a second for.

    That is a grammar of international web addresses, which no schema of a notebook asks for.
    """
    grammar = "rfc3987_syntax"
    if grammar not in sys.modules:
        modules: dict[str, Any] = sys.modules
        modules[grammar] = None  # to an import: it is not installed
        try:
            import jsonschema  # noqa: F401
        finally:
            del sys.modules[grammar]
    import nbformat

    return nbformat


class Copied(StrEnum):
    """Say what became of one notebook that was to be copied."""

    WRITTEN = "written"
    SAME = "is there already"
    KEPT = "differs, and was left as it is"


def copy_notebooks(target: Path) -> dict[Path, Copied]:
    """Copy the notebooks of this version into a folder that is made if need be; return what became of each.

    What is there already is never written over. A copy is whole or not there.
    """
    folder = notebook_folder()
    names = notebook_names(folder)
    if not names:
        raise UsageError(f"there are no notebooks in {folder}")
    if os.path.lexists(target) and not target.is_dir():
        raise UsageError(f"{target} is no folder")
    target.mkdir(parents=True, exist_ok=True)
    done = {}
    for name in names:
        text, path = (folder / f"{name}.ipynb").read_bytes(), target / f"{name}.ipynb"
        if os.path.lexists(path):
            same = path.is_file() and path.read_bytes() == text
            done[path] = Copied.SAME if same else Copied.KEPT
            continue
        partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            partial.write_bytes(text)
            os.link(partial, path)  # unlike a rename, this never replaces what somebody has put there meanwhile
        finally:
            partial.unlink(missing_ok=True)
        done[path] = Copied.WRITTEN
    return done
