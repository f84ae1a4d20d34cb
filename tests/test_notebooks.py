"""The notebooks that come with the package: clean, thin, the same however they are run, in the wheel, copied."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from html import escape
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tests.conftest import ROOT
from tests.helpers import LIMIT_S
from tests.made_notebooks import made
from tests.test_live import bot, status_of
from tradingbot.ops.report.notebooks import find_notebook, notebook_names
from tradingbot.ops.report.parameters import read_parameters

FOLDER = ROOT / "notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
LINE = re.compile(r"\w+: (?:Optional\[\w+\]|list\[\w+\]|\w+) = [^=#]+?  # \S.*")


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def breaches(path: Path) -> list[str]:
    """Return which rules of a committed notebook one breaks."""
    from papermill.inspection import _infer_parameters
    from papermill.iorw import load_notebook_node

    notebook = nbformat.read(path, 4)
    cells, found = code_cells(notebook), []
    if (notebook.metadata.get("kernelspec") or {}).get("name") != "python3":
        found.append("kernelspec")
    if any(cell.outputs or cell.execution_count for cell in cells):
        found.append("not clean")
    if notebook.cells[0].cell_type != "markdown" or not notebook.cells[0].source.startswith("# "):
        found.append("title")
    if cells[0].metadata.get("tags") != ["parameters"]:
        return [*found, "parameters cell"]
    lines = [line for line in cells[0].source.splitlines() if not line.startswith("from typing import ")]
    found += [f"parameter line: {line}" for line in lines if line and not LINE.fullmatch(line)]
    inspected = {parameter.name: parameter for parameter in _infer_parameters(load_notebook_node(str(path)))}
    if {name: p.help for name, p in inspected.items()} != {
        n: p.help for n, p in read_parameters(cells[0].source).items()
    }:
        found.append("papermill reads other parameters")
    if not re.match(r"import tradingbot as tb\n+tb\.prepare_notebook\(\)(\n|$)", cells[1].source):
        found.append("first cell")
    if not re.search(r"^tb\.conclude\(.*\)$", cells[-1].source, re.MULTILINE | re.DOTALL):
        found.append("last cell")
    for cell in cells:
        tree = ast.parse(cell.source, type_comments=False) if "await" not in cell.source else _parsed(cell.source)
        logic = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda, ast.For, ast.While, ast.Try)
        found += [f"logic: {type(node).__name__}" for node in ast.walk(tree) if isinstance(node, logic)]
    return found


def _parsed(source: str) -> ast.AST:
    return compile(source, "cell", "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def test_committed_notebooks_keep_the_rules() -> None:
    """Stripped, thin, with typed and commented parameters, from the first call to the last."""
    assert {name: breaches(FOLDER / f"{name}.ipynb") for name in NAMES} == {name: [] for name in NAMES}


def test_committed_notebooks_are_stripped(tmp_path: Path) -> None:
    """As nbstripout itself verifies it; of one that is not, it says so."""

    def verified(*paths: Path) -> int:
        command = [sys.executable, "-m", "nbstripout", "--verify", *map(str, paths)]
        return subprocess.run(command, capture_output=True, check=False).returncode

    clean = made(tmp_path / "clean.ipynb", "print(1)")
    assert verified(clean, *(FOLDER / f"{name}.ipynb" for name in NAMES)) == 0
    dirty = nbformat.read(clean, 4)
    code_cells(dirty)[1].execution_count = 3
    nbformat.write(dirty, tmp_path / "dirty.ipynb")
    assert verified(clean, tmp_path / "dirty.ipynb") == 1


def test_each_rule_is_one_that_finds_its_breach(tmp_path: Path) -> None:
    """A notebook as it should be has none; each thing that is wrong is found."""

    def changed(change: Any, **options: Any) -> list[str]:
        path = made(tmp_path / "x.ipynb", "tb.__version__", **options)
        notebook = nbformat.read(path, 4)
        change(notebook)
        nbformat.write(notebook, path)
        return breaches(path)

    def nothing(_: Any) -> None: ...

    assert changed(nothing) == []
    assert changed(lambda nb: nb.metadata.kernelspec.update(name="other")) == ["kernelspec"]
    assert changed(lambda nb: code_cells(nb)[1].update(execution_count=3)) == ["not clean"]
    assert changed(lambda nb: code_cells(nb)[1].outputs.append(nbformat.v4.new_output("stream", text="x"))) == [
        "not clean"
    ]
    assert changed(lambda nb: code_cells(nb)[0].metadata.pop("tags")) == ["parameters cell"]
    assert changed(lambda nb: nb.cells.pop(0)) == ["title"]
    assert changed(lambda nb: code_cells(nb)[1].update(source="import tradingbot")) == ["first cell"]
    assert changed(lambda nb: code_cells(nb)[-1].update(source="print(1)")) == ["last cell"]
    assert changed(lambda nb: code_cells(nb)[2].update(source="f = lambda: 1")) == ["logic: Lambda"]
    assert changed(nothing, parameters="n = 1  # x") == ["parameter line: n = 1  # x"]
    assert changed(nothing, parameters="n: int = 1") == ["parameter line: n: int = 1"]
    assert "papermill reads other parameters" in changed(nothing, parameters="n: float | None = None  # x")
    assert "papermill reads other parameters" in changed(nothing, parameters="n: int = 1  # as in n=2")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give the home of a running bot, for notebooks to look at."""
    home = tmp_path_factory.mktemp("home")
    words = ("--set", "EMBEDDED_SPEED=20", "--set", "EMBEDDED_SYMBOLS=4", "--set", "DROP_TRIGGER_VALUE=0.998",
             "--set", "TICKER_MAX_AGE_S=3600")  # fmt: skip
    with bot(home, *words):
        yield home


def tool(cwd: Path, home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "TRADINGBOT_HOME": str(home), "IPYTHONDIR": str(home / "ipython")}
    command = [sys.executable, "-m", *words]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=cwd, env=environ, timeout=5 * LIMIT_S, check=False
    )


def mocks(path: Path) -> dict[str, Any]:
    """Return the parameters by which a notebook is shortened under nbmake."""
    found: dict[str, Any] = {}
    for cell in nbformat.read(path, 4).cells:
        found |= cell.metadata.get("nbmake", {}).get("mock", {})
    return found


@pytest.mark.parametrize("name", NAMES or ["made"])
def test_each_notebook_runs_under_nbmake_papermill_and_report(running: Path, tmp_path: Path, name: str) -> None:
    """To its last cell, from another working directory than its own; the executed source is as it was."""
    path = FOLDER / f"{name}.ipynb" if NAMES else made(tmp_path / "made.ipynb", "print(n)")
    before, short = path.read_bytes(), mocks(path)
    ways = {
        "nbmake": (ROOT, "pytest", "-p", "no:cacheprovider", "--nbmake", str(path)),
        "papermill": (
            tmp_path, "papermill", "--no-progress-bar", str(path), "out.ipynb",
            *(word for key, value in short.items() for word in ("-p", key, str(value))),
        ),
        "report": (
            tmp_path, "tradingbot", "report", name if NAMES else str(path), "--json",
            *(word for key, value in short.items() for word in ("-p", f"{key}={value}")),
        ),
    }  # fmt: skip
    with ThreadPoolExecutor(2) as pool:
        done = dict(zip(ways, pool.map(lambda way: tool(way[0], running, *way[1:]), ways.values()), strict=True))
    assert done["nbmake"].returncode == 0, done["nbmake"].stdout
    assert done["papermill"].returncode == 0, done["papermill"].stderr[-3_000:]
    record = json.loads(done["report"].stdout)
    assert (done["report"].returncode, record["verdict"]) == (0, "passed"), (record["says"], record["error"])
    assert path.read_bytes() == before
    status, page = status_of(running), Path(record["paths"]["page"]).read_text()
    assert (record["session"], record["session_fingerprint"]) == (status["bot"]["sid"], status["settings_fingerprint"])
    assert record["settings_fingerprint"] != record["session_fingerprint"]  # the bot was started with --set
    assert record["findings"]
    for finding in record["findings"]:  # each check stands there once
        cells = (f"<td[^>]*>{re.escape(escape(finding[part]))}</td>" for part in ("name", "says"))
        assert len(re.findall("".join(cells), page)) == 1, finding


GROUP = "import asyncio\n\nasync with asyncio.TaskGroup() as group:\n    group.create_task(asyncio.to_thread(int, 'x'))"


def test_plain_papermill_and_nbmake_fail_where_a_cell_fails(tmp_path: Path) -> None:
    """A group of exceptions would otherwise be no error at all to nbmake, with or without await."""
    notebooks = {
        "group": made(tmp_path / "group.ipynb", GROUP),
        "sync_group": made(
            tmp_path / "sync_group.ipynb", "raise ExceptionGroup('two', [ValueError('a'), OSError('b')])"
        ),
    }
    done = tool(ROOT, tmp_path, "pytest", "-p", "no:cacheprovider", "--nbmake", *map(str, notebooks.values()))
    assert "2 failed in" in done.stdout, done.stdout
    assert done.returncode == 1
    done = tool(
        tmp_path, tmp_path, "papermill", "--no-progress-bar", str(notebooks["group"]), str(tmp_path / "out.ipynb")
    )
    assert done.returncode == 1
    executed = nbformat.read(tmp_path / "out.ipynb", 4)
    errors = [output for cell in code_cells(executed) for output in cell.outputs if output.output_type == "error"]
    assert [error.ename for error in errors] == ["ExceptionGroup"]
    assert "ValueError: invalid literal" in "\n".join(errors[0].traceback)
    assert not code_cells(executed)[-1].outputs


def test_the_kernel_is_prepared_outside_ipython_too() -> None:
    """Where there is no kernel the first and the last call do no harm: checks are words, a failure an exception."""
    import tradingbot as tb
    from tradingbot.ops.checkup import Finding, Verdict

    tb.prepare_notebook()
    tb.conclude([Finding("disk", Verdict.OK, "fine")])
    with pytest.raises(tb.CheckFailedError, match="failed: disk"):
        tb.conclude([Finding("disk", Verdict.FAILED, "full")])


def test_the_wheel_holds_the_notebooks_and_an_installed_package_finds_them(tmp_path: Path) -> None:
    """At the place where it looks for them where there is no checkout."""
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "tradingbot", source / "tradingbot", ignore=shutil.ignore_patterns("__pycache__"))
    if FOLDER.is_dir():
        shutil.copytree(FOLDER, source / "notebooks")
    (source / "notebooks").mkdir(exist_ok=True)
    made(source / "notebooks" / "zz_made.ipynb", "print(1)")
    done = tool(source, tmp_path, "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "wheel"))
    assert done.returncode == 0, done.stderr
    (wheel,) = (tmp_path / "wheel").glob("*.whl")
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        assert not [name for name in archive.namelist() if name.startswith("notebooks/")]
        archive.extractall(site)
    environ = {**os.environ, "PYTHONPATH": str(site)}
    code = "import tradingbot, sys; from tradingbot.cli import main; print(tradingbot.__file__); sys.exit(main())"
    words = [sys.executable, "-c", code, "notebooks", "copy", str(tmp_path / "mine")]
    done = subprocess.run(
        words, capture_output=True, text=True, cwd=tmp_path, env=environ, timeout=LIMIT_S, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(site))
    assert {path.stem for path in (tmp_path / "mine").iterdir()} == {*NAMES, "zz_made"}


def test_a_copy_never_writes_over_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A changed notebook stays, is named, and the exit code says so; a link is not followed."""
    from tradingbot.cli import main
    from tradingbot.ops.report import notebooks

    (tmp_path / "shipped").mkdir()
    for name in ("one", "two", "three"):
        made(tmp_path / "shipped" / f"{name}.ipynb", "print(1)")
    monkeypatch.setattr(notebooks, "notebook_folder", lambda: tmp_path / "shipped")
    target = tmp_path / "deep" / "mine"
    assert main(["notebooks", "copy", str(target)]) == 0
    assert main(["notebooks", "copy", str(target)]) == 0
    (target / "one.ipynb").write_text("mine")
    (target / "two.ipynb").unlink()
    (target / "two.ipynb").symlink_to(tmp_path / "elsewhere")
    assert main(["notebooks", "copy", str(target)]) == 1
    assert (target / "one.ipynb").read_text() == "mine"
    assert not (tmp_path / "elsewhere").exists()
    assert sorted(path.name for path in target.iterdir()) == ["one.ipynb", "three.ipynb", "two.ipynb"]
    assert main(["notebooks", "copy", str(tmp_path / "shipped" / "one.ipynb")]) == 2


def test_the_notebooks_of_this_version_are_shown_with_their_parameters() -> None:
    """Name, title, and each parameter with its default and meaning."""
    done = tool(ROOT, ROOT, "tradingbot", "notebooks", "--json")
    shown = {record["name"]: record for record in json.loads(done.stdout)["notebooks"]}
    assert sorted(shown) == NAMES == (notebook_names() if FOLDER.is_dir() else [])
    for name in NAMES:
        assert set(shown[name]["parameters"]) == set(find_notebook(name).parameters)
        assert shown[name]["title"]
