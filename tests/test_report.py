"""Reports: notebooks run through the real command, whatever becomes of their cells, kernels, disks and runners."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tests.crash import machine
from tests.made_notebooks import IMPORTS, made
from tradingbot.api.checks import Checked
from tradingbot.ops.checkup import Finding, Verdict
from tradingbot.ops.report.child import GRACE_S
from tradingbot.ops.report.index import Report, forget_old, list_reports, write_index, write_record
from tradingbot.ops.report.page import findings_table, report_html
from tradingbot.ops.report.process import MARK

HOSTILE = (
    "<script>alert(1)</script>\\x1b[31mred\\x1b]0;title\\x07<img src=http://example.org/x.png> ![x](http://example.org)"
)
GROUP = """\
import asyncio

async def feed():
    raise ValueError("the feed broke")

async with asyncio.TaskGroup() as group:
    group.create_task(feed())
"""
DEAD = """\
import asyncio

async def feed():
    raise ValueError("the feed broke")

task = asyncio.create_task(feed(), name="feed")
await asyncio.sleep(0.1)
"""
FOREVER = """\
import subprocess
child = subprocess.Popen(["sleep", "987"], start_new_session=True)
print("the last words", flush=True)
while True:
    pass
"""
PARAMETERS = """\
from typing import Optional
n: int = 1  # a number
label: str = "x"  # a text
ratio: Optional[float] = None  # a share
dry: bool = True  # whether nothing is changed
values: list[float] = [0.98, 0.985]  # thresholds
home: str = ""  # the folder that everything lives under
"""
FAILS = (
    IMPORTS
    + 'found = [Finding("disk", Verdict.FAILED, "it is <full>", fix="make room"), Finding("a", Verdict.OK, "b")]\n'
    + 'tb.conclude(found, "NO-GO")'
)
CELLS: dict[str, tuple[str, ...]] = {
    "forever": (FOREVER.replace("pass", "import time; time.sleep(1)"), "print('never')"),
    "passes": (
        'print(f"got {[n, label, ratio, dry, values]!r}")',
        "import os\nprint('token', os.environ.get('MY_TOKEN'))\n"
        "from ipykernel.connect import get_connection_info\nprint('by', get_connection_info(unpack=True)['transport'])",
    ),
    "fails": ("print(1)",),
    "raises": ("def f():\n    return 1 / 0\nf()", "print('never')"),
    "group": (GROUP, "print('never')"),
    "context": (
        "try:\n    raise ExceptionGroup('g', [ValueError('a')])\nexcept ExceptionGroup:\n    raise OSError('later')",
    ),
    "dead_task": (DEAD,),
    "refused": ("from tradingbot.errors import UsageError\nraise UsageError('there is no state directory x')",),
    "exits": ("import os, time\nprint('hello', flush=True)\ntime.sleep(1)\nos._exit(3)", "print('never')"),
    "is_killed": ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "print('never')"),
    "hostile": (f'print("{HOSTILE}")', f'raise ValueError("{HOSTILE}")'),
    "floods": ("for i in range(10_000):\n    print('line', i)", "print('x' * 6_000_000)"),
}
WORDS: dict[str, tuple[str, ...]] = {
    "passes": ("-p", "n=3", "-p", "label=it's {x}\"", "-p", "ratio=0.5", "-p", "dry=false", "-p", "values=0.9,1"),
}


def command(home: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "tradingbot", "--home", str(home), "report", *words]


def call(home: Path, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(home, *words), capture_output=True, text=True, timeout=600, check=False, env={**os.environ, **environ}
    )


class Run:
    """Hold what one run said and left."""

    def __init__(self, home: Path, facts: dict[str, Any]) -> None:
        self.code, self.stdout, self.stderr = facts["code"], facts["stdout"], facts["stderr"]
        self.record = json.loads(self.stdout)
        self.home, self.limit_s = home, facts["limit_s"]

    @property
    def page(self) -> str:
        return Path(self.record["paths"]["page"]).read_text()

    @property
    def text(self) -> str:
        """What the page shows, without tags."""
        return re.sub(r"<[^>]+>", "", self.page.partition("<body>")[2])

    @property
    def executed(self) -> Any:
        return json.loads(Path(self.record["paths"]["notebook"]).read_text())


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """Run every made notebook once, several at a time in one home; processes of a test run share what came of it."""
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "reports"
    shared.mkdir(exist_ok=True)
    with (shared / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        results, home = shared / "results.json", shared / "home"
        if not results.exists():
            home.mkdir()
            for name, cells in CELLS.items():
                parameters = {"parameters": PARAMETERS} if name == "passes" else {}
                made(shared / f"{name}.ipynb", *cells, **parameters, **({"end": FAILS} if name == "fails" else {}))

            def run(name: str, limit_s: int = 300) -> dict[str, Any]:
                words = ("--json", "--timeout", str(limit_s), *WORDS.get(name, ()))
                done = call(home, str(shared / f"{name}.ipynb"), *words, MY_TOKEN="canary-7731")
                return {"code": done.returncode, "stdout": done.stdout, "stderr": done.stderr, "limit_s": limit_s}

            began_s = time.monotonic()
            passed = run("passes")
            limit_s = 10 + int(4 * (time.monotonic() - began_s))  # enough for one of three, also here
            with ThreadPoolExecutor(3) as pool:
                ended = pool.submit(run, "forever", limit_s)
                others = [name for name in CELLS if name not in ("passes", "forever")]
                facts = dict(zip(others, pool.map(run, others), strict=True))
                results.write_text(json.dumps(facts | {"passes": passed, "forever": ended.result()}))
    facts = json.loads(results.read_text())
    return {name: Run(home, facts[name]) for name in CELLS}


def test_a_run_passes_on_its_parameters_as_what_they_are(runs: dict[str, Run]) -> None:
    """'false' is False; a text with quotes and braces stays one."""
    run = runs["passes"]
    assert (run.code, run.record["verdict"], run.record["says"]) == (0, "passed", "1 check: 1 ok")
    assert "got [3, 'it\\'s {x}\"', 0.5, False, [0.9, 1.0]]" in json.dumps(run.executed).replace("\\\\", "\\").replace(
        '\\"', '"'
    )
    assert run.record["parameters"]["home"] == str(run.home)
    assert "injected-parameters" in json.dumps(run.executed)


def test_the_source_of_a_run_stays_as_it_is(runs: dict[str, Run]) -> None:
    """Byte for byte."""
    path = Path(runs["passes"].record["path"])
    before = path.read_bytes()
    made(path, *CELLS["passes"], parameters=PARAMETERS)
    cells = [[cell["source"] for cell in json.loads(text)["cells"]] for text in (before, path.read_bytes())]
    assert cells[0] == cells[1]
    assert not json.loads(before)["cells"][-1]["outputs"]
    path.write_bytes(before)


def test_a_report_is_stamped(runs: dict[str, Run]) -> None:
    """With what a reader needs to know where it came from; in the notebook's metadata, and on the page."""
    record = runs["passes"].executed["metadata"]["tradingbot"]
    assert record["version"]
    assert len(record["settings_fingerprint"]) == 16
    assert record["state"] == str(runs["passes"].home / "state")
    assert record["started_ms"] < record["ended_ms"]
    for word in (record["version"], record["settings_fingerprint"], record["state"], "n=3", "ratio=0.5", " UTC to "):
        assert word in runs["passes"].text


def test_a_kernel_is_given_no_credentials(runs: dict[str, Run]) -> None:
    """What a notebook does not have, its report cannot show."""
    assert "token None" in runs["passes"].text
    for path in (runs["passes"].home / "reports").iterdir():
        if path.suffix != ".tmp":  # a half index, of the test that lists these reports meanwhile
            assert b"canary-7731" not in path.read_bytes()


def test_a_kernel_takes_no_port(runs: dict[str, Run]) -> None:
    """Two that start at once could be given the same; where a socket's path would be too long it takes one."""
    from tradingbot.ops.report.child import _transport

    assert ("by ipc" in runs["passes"].text) == (len(os.environ.get("TMPDIR", "/tmp")) < 60)
    assert [_transport("/tmp/" + "x" * length) for length in (9, 300)] == ["ipc", "tcp"]


@pytest.mark.parametrize(
    ("name", "code", "verdict", "says"),
    [
        ("fails", 1, "failed", "NO-GO. 1 of 2 checks failed: disk"),
        ("raises", 1, "failed", "ZeroDivisionError: division by zero in cell 5 of 7 under 'The part that matters'"),
        ("group", 1, "failed", "ExceptionGroup: unhandled errors in a TaskGroup (1 sub-exception) in cell 5 of 7"),
        ("context", 1, "failed", "OSError: later in cell 5 of 6"),
        ("dead_task", 1, "failed", "1 of 2 checks failed: background task"),
        ("refused", 1, "failed", "UsageError: there is no state directory x in cell 5 of 6"),
        ("exits", 1, "incomplete", "the kernel died in cell 5 of 7 under 'The part that matters'"),
        ("is_killed", 1, "incomplete", "the kernel died in cell 5 of 7"),
        ("forever", 124, "incomplete", "stopped at the time limit of LIMIT s in cell 5 of 7"),
        ("hostile", 1, "failed", "ValueError: <script>alert(1)</script>"),
        ("floods", 0, "passed", "1 check: 1 ok"),
    ],
)  # fmt: skip
def test_each_end_has_its_exit_code_and_says_what_happened_where(
    runs: dict[str, Run], name: str, code: int, verdict: str, says: str
) -> None:
    """On stdout, on the page, in the notebook; incomplete ones also by their names."""
    run = runs[name]
    assert (run.code, run.record["verdict"]) == (code, verdict)
    assert run.record["says"].startswith(says.replace("LIMIT", str(run.limit_s)))
    assert run.record["exit_code"] == code
    for path in run.record["paths"].values():
        assert ("_incomplete" in path) == (verdict == "incomplete")
    assert {"failed": "FAILED", "incomplete": "INCOMPLETE", "passed": "PASSED"}[verdict] in run.page
    if verdict != "passed":
        assert "never" not in run.text.replace("print('never')", "")
        assert verdict.upper() in json.dumps(run.executed["cells"][0])


def test_an_error_is_readable(runs: dict[str, Run]) -> None:
    """The traceback stands there without escapes; of a group each member; our own errors are one line."""
    assert "return 1 / 0" in runs["raises"].text
    assert "the feed broke" in runs["group"].text
    assert "ValueError: the feed broke" in runs["dead_task"].text
    assert "Traceback" not in runs["refused"].text
    for run in runs.values():
        assert "\x1b" not in run.page
        assert "\x1b" not in run.stdout + run.stderr
        assert "[0;31m" not in run.page


def test_what_a_run_had_printed_before_its_limit_is_kept(runs: dict[str, Run]) -> None:
    """The last words of the cell that did not end."""
    assert "the last words" in runs["forever"].text
    assert "hello" in runs["exits"].text


def test_nothing_that_a_run_started_outlives_it(runs: dict[str, Run]) -> None:
    """Neither kernels nor what cells have started in sessions of their own."""
    assert runs["forever"].code == 124
    assert processes_of(str(runs["forever"].home)) == []


def processes_of(home: str) -> list[str]:
    """Return the processes that belong to a run in this home."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            environ, words = (path / "environ").read_bytes(), (path / "cmdline").read_bytes()
        except OSError:
            continue
        if b"TRADINGBOT_REPORT=" in environ and f"TRADINGBOT_HOME={home}\0".encode() in environ + b"\0" and words:
            found.append(words.replace(b"\0", b" ").decode(errors="replace"))
    return found


class Links(HTMLParser):
    """Collect what a page refers to, and the elements that it has."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "data", "srcset", "action")]


def test_a_page_stands_alone(runs: dict[str, Run]) -> None:
    """No script, nothing from the network; links lead to files beside it; the policy forbids the browser the rest."""
    pages = [*(runs["passes"].home / "reports").glob("*.html")]
    assert len(pages) == len(CELLS) + 1
    for path in pages:
        links = Links()
        text = path.read_text()
        links.feed(text)
        assert "Content-Security-Policy" in text
        assert "default-src 'none'" in text
        assert not links.tags & {"script", "iframe", "object", "embed", "link", "form"}, path.name
        for link in links.links:
            assert link.startswith(("data:", "#")) or (path.parent / link).is_file(), f"{path.name}: {link}"


def test_hostile_text_is_shown_as_text(runs: dict[str, Run]) -> None:
    """On the page, in the index, on the terminal."""
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in runs["hostile"].page
    assert "it is &lt;full&gt;" in runs["fails"].page
    index = (runs["hostile"].home / "reports" / "index.html").read_text()
    assert "&lt;script&gt;" in index
    assert "<script" not in index


def test_checks_that_a_page_begins_with_are_not_shown_again_below() -> None:
    """In their place stands what the cell has beside them; checks that the notebook does not conclude with stay."""
    said, other = (Checked(name, "/s", "ok", (Finding(name, Verdict.OK, f"{name} is well"),)) for name in ("a", "b"))
    cells = []
    for checked in (said, other):
        data, metadata = checked._repr_mimebundle_()
        outputs = [nbformat.v4.new_output("execute_result", data, metadata=metadata)]
        cells.append(nbformat.v4.new_code_cell("checked", outputs=outputs))
    record = report("made_20260101T000000Z", 1, findings=[finding.to_record() for finding in said.findings])
    page = report_html(nbformat.v4.new_notebook(cells=cells), record.to_record())
    assert [page.count(f"{name} is well") for name in ("a", "b")] == [1, 1]
    assert page.index("a is well") < page.index("a /s: 1 ok") < page.index("b is well")


def test_a_stamp_tells_the_settings_of_the_bot_from_those_of_the_command() -> None:
    """A report is about a session; where none has told of itself that is said."""
    empty = nbformat.v4.new_notebook()
    stamped = partial(report, "made_20260101T000000Z", 1, settings_fingerprint="aaaa")
    for facts, words in (
        (("S1", "bbbb"), "bbbb, of session S1, the last one there when this run began; aaaa, of this command"),
        (("S1", "aaaa"), "this command's own are the same"),
        (("", ""), "aaaa, of this command; no bot had told of itself there"),
    ):
        told = dict(zip(("session", "session_fingerprint"), facts, strict=True))
        assert words in unescape(report_html(empty, stamped(**told).to_record()))


def test_a_long_output_is_cut_on_the_page_and_whole_in_the_notebook(runs: dict[str, Run]) -> None:
    """10,000 lines are no page to read; what no person reads is not kept at all."""
    run = runs["floods"]
    assert "line 199\n" in run.text
    assert "line 9999" in run.text
    assert "line 5000" not in run.text
    assert "9,601 lines are left out here" in run.text
    cells = run.executed["cells"]
    assert "".join(cells[4]["outputs"][0]["text"]).count("\n") == 10_000
    printed = "".join(cells[5]["outputs"][0]["text"])
    assert "is not kept" in printed
    assert len(printed) < 5_000_200


def test_files_are_for_their_owner_alone(runs: dict[str, Run]) -> None:
    """0700 and 0600."""
    folder = runs["passes"].home / "reports"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir() if path.suffix != ".tmp"} == {0o600}


def test_runs_at_a_time_leave_one_whole_index(runs: dict[str, Run]) -> None:
    """Every report has its row, the newest first, and no half file is left."""
    folder = runs["passes"].home / "reports"
    done = call(runs["passes"].home, "--list", "--json")
    reports = json.loads(done.stdout)["reports"]
    assert {report["notebook"] for report in reports} == set(CELLS)
    assert [r["started_ms"] for r in reports] == sorted((r["started_ms"] for r in reports), reverse=True)
    assert (folder / "index.html").read_text().count("<tr>") == len(CELLS) + 1
    assert [path.name for path in folder.iterdir() if path.suffix in (".partial", ".tmp")] == []
    assert "passes" in call(runs["passes"].home, "--list").stdout


@pytest.fixture
def forever(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Give a run whose cell does not end, once it is in that cell; its stderr is a terminal, which is told so."""
    made(tmp_path / "forever.ipynb", FOREVER)
    (tmp_path / "home").mkdir()
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    heed = partial(signal.signal, signal.SIGINT, signal.default_int_handler)  # a test run in the background ignores it
    words = command(tmp_path / "home", str(tmp_path / "forever.ipynb"))
    ours, theirs = pty.openpty()
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": theirs, "text": True}
    environ = {**os.environ, "TMPDIR": str(scratch)}
    with (
        subprocess.Popen(words, env=environ, preexec_fn=heed, **pipes) as process,  # noqa: PLW1509
        os.fdopen(ours, "rb", 0) as terminal,
    ):
        os.close(theirs)
        told = b""
        while b"\rcell 5 of 6" not in told:
            told += terminal.read(1024)
        saved = tmp_path / "home" / "reports"
        while not any("running" in path.read_text() for path in saved.glob("*.partial")):
            time.sleep(0.05)
        yield process
        if process.poll() is None:
            process.kill()


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_a_signal_ends_a_run_and_keeps_what_it_had(
    forever: subprocess.Popen[str], tmp_path: Path, number: int, code: int, word: str
) -> None:
    """With the exit code of the signal, a report that is marked, and no process left."""
    forever.send_signal(number)
    stdout, _ = forever.communicate(timeout=60)
    assert forever.returncode == code, stdout
    assert f"INCOMPLETE forever: {word}" in stdout
    assert "in cell 5 of 6 under 'The part that matters', which begins with 'import subprocess'" in stdout
    page = next((tmp_path / "home" / "reports").glob("*_incomplete.html")).read_text()
    assert word in page
    assert processes_of(str(tmp_path / "home")) == []
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_runner_that_is_killed_leaves_no_process_and_a_report_for_the_next_one_to_conclude(
    forever: subprocess.Popen[str], tmp_path: Path
) -> None:
    """kill -9 is the one end that nobody can write down; whoever else holds the runner's files open changes nothing."""
    home = tmp_path / "home"
    kept = [os.open(path, os.O_RDWR | os.O_NONBLOCK) for path in pipes_of(forever.pid)]
    forever.kill()
    forever.communicate(timeout=60)
    end = time.monotonic() + 120
    while processes_of(str(home)) or list((tmp_path / "tmp").glob("tb-report-*")):
        assert time.monotonic() < end, processes_of(str(home))
        time.sleep(0.1)
    done = call(home, "--list")
    assert "incomplete" in done.stdout
    page = next((home / "reports").glob("*_incomplete.html")).read_text()
    assert "what ran it was killed, or could not write in cell 5 of 6" in page
    assert list((home / "reports").glob("*.partial")) == []
    for number in kept:
        os.close(number)


def pipes_of(pid: int) -> list[Path]:
    """Return the pipes of a process and of those that it started, as a process that inherited them would have them."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    paths = [path for each in (str(pid), *children) for path in Path(f"/proc/{each}/fd").iterdir()]
    pipes = {str(path.readlink()): path for path in paths if int(path.name) not in (1, 2)}
    return [path for name, path in pipes.items() if name.startswith("pipe:")]


def test_a_run_ends_itself_where_its_runner_does_not(tmp_path: Path) -> None:
    """Some time after the limit, though who started it lives: saved, its kernel ended, its scratch files removed."""
    scratch = tmp_path / "scratch"
    notebook = json.loads(made(tmp_path / "forever.ipynb", FOREVER).read_text())
    partial, home = tmp_path / "kept.ipynb", tmp_path / "home"
    facts = {"notebook": notebook, "parameters": {}, "partial": str(partial), "scratch": str(scratch)}
    job = scratch / "job.json"
    mark = os.urandom(8).hex()  # all that bears it is ended
    environ = {**os.environ, MARK: mark, "TRADINGBOT_HOME": str(home), "JUPYTER_RUNTIME_DIR": str(scratch)}
    for seconds in (5, 20, 80):  # until it has begun within them
        scratch.mkdir()
        job.write_text(json.dumps(facts | {"runner": os.getpid(), "timeout_s": seconds - GRACE_S}))
        reading, writing = os.pipe()
        words = [sys.executable, "-m", "tradingbot.ops.report.child", str(job), str(writing)]
        done = subprocess.run(words, pass_fds=(writing,), env=environ, capture_output=True, timeout=300, check=False)
        os.close(writing)
        os.close(reading)
        assert done.returncode == 0
        assert processes_of(str(home)) == []
        assert not scratch.exists()
        if partial.is_file():
            break
    assert partial.is_file()


def test_a_disk_that_fills_is_one_line_and_what_was_executed_is_kept(tmp_path: Path) -> None:
    """And its page is made once there is room; where there is none from the start, nothing is run."""
    fill = (
        "from pathlib import Path\nwith Path(home, 'fill').open('wb', buffering=0) as file:\n    try:\n"
        "        while file.write(bytes(65536)):\n            pass\n    except OSError:\n        pass"
    )
    notebook = made(tmp_path / "fills.ipynb", fill, "print('y' * 300_000)", parameters="home: str = ''  # where")
    with machine.tmpfs(tmp_path / "disk", "size=30m") as home:
        done = call(home, str(notebook))
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
        assert done.stderr.startswith("tradingbot: No space left on device: the report in ")
        assert ".ipynb.partial, and the next report" in done.stderr
        again = call(home, str(notebook))
        assert (again.returncode, again.stdout) == (2, "")
        assert "nothing was run" in again.stderr
        (home / "fill").unlink()
        assert "fills" in call(home, "--list").stdout
        endings = {path.name.partition("Z")[2] for path in (home / "reports").glob("fills_*")}
        assert endings == {".json", "_incomplete.ipynb", "_incomplete.html"}


def report(stem: str, started_ms: int, **facts: Any) -> Report:
    files = {"notebook": f"{stem}.ipynb", "page": f"{stem}.html"}
    base = Report(
        stem=stem, notebook="verify", title="T", path="/x", parameters={}, home="/h", state="/h/state", version="0",
        commit=None, settings_fingerprint=None, settings_error=None, started_ms=started_ms, ended_ms=started_ms + 1,
        verdict="passed", exit_code=0, files=files,
    )  # fmt: skip
    return replace(base, **facts)


def test_the_newest_reports_of_each_notebook_are_kept_and_nothing_else_is_touched(tmp_path: Path) -> None:
    """What somebody else has put there stays, also where its name or record looks like ours."""
    for index in range(4):
        for name in ("verify", "observe"):
            made_ = report(f"{name}_20260101T00000{index}Z", index, notebook=name)
            write_record(tmp_path, made_)
            for file in made_.files.values():
                (tmp_path / file).write_text("x")
    write_record(tmp_path, report("verify_20250101T000000Z", -9, verdict="running"))
    (tmp_path / "verify_20240101T000000Z.json").write_text('{"stem": "verify_20240101T000000Z"}')
    (tmp_path / "notes.json").write_text("{}")
    (tmp_path / "verify_20240101T000000Z.html").write_text("mine")
    evil = report("verify_20230101T000000Z", -10, files={"page": "../../etc/passwd"})
    write_record(tmp_path, evil)
    removed = forget_old(tmp_path, 2)
    assert {r.stem[-2:] for r in removed} == {"0Z", "1Z"}
    assert len(removed) == 4
    left = {path.name for path in tmp_path.iterdir()}
    assert {"notes.json", "verify_20240101T000000Z.json", "verify_20240101T000000Z.html"} <= left
    assert {"verify_20250101T000000Z.json", "verify_20230101T000000Z.json"} <= left
    assert len(list(tmp_path.glob("verify_2026*"))) == 6
    assert [r.stem for r in list_reports(tmp_path)][:1] == ["verify_20260101T000003Z"]
    assert forget_old(tmp_path, 2) == []


def test_an_index_is_escaped_and_links_to_what_is_there_alone(tmp_path: Path) -> None:
    """A title is no markup, and a page that is gone is no link."""
    write_record(tmp_path, report("verify_20260101T000000Z", 1, title="<b>T\x1b", says="<i>", parameters={"n": "<u>"}))
    text = write_index(tmp_path).read_text()
    assert "href" not in text
    assert "&lt;b&gt;T?" in text
    assert not re.search(r"<[biu]>", text)
    (tmp_path / "verify_20260101T000000Z.html").write_text("")
    assert 'href="verify_20260101T000000Z.html"' in write_index(tmp_path).read_text()


def test_a_table_of_checks_is_escaped() -> None:
    """Names, words, evidence: whatever a symbol or an error put there."""
    text = findings_table([{"name": "<a>", "verdict": "failed", "says": "<b>\x1b", "fix": "<c>\n<d>", "seconds": 1}])
    assert re.findall(r"<[abcd]>", text) == []
    assert "&lt;c&gt;<br>&lt;d&gt;" in text
    assert "\x1b" not in text
