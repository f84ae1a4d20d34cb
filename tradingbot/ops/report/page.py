"""A report as one HTML file: verdict and checks first, then what the notebook shows; nothing comes from outside."""

from __future__ import annotations

import copy
import re
import shlex
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from html import escape
from typing import Any

__all__ = [
    "BANNER_TAG", "FINDINGS_TYPE", "PAGE_KEY", "VERDICTS", "WIDGET_TYPE", "WORDS", "findings_table", "given_text",
    "joined", "page", "plain", "report_html", "took_text", "utc_text",
]  # fmt: skip

FINDINGS_TYPE = "application/vnd.tradingbot.findings+json"
"""The MIME type under which a notebook shows its checks, as a list of JSON objects."""

PAGE_KEY = "tradingbot"
"""The key in an output's metadata for what only a page needs.

`answer` is what the page begins with; `checks` are those that the output shows, as JSON objects, and `instead` is the
HTML in its place where they stand at the top of the page already.
"""

BANNER_TAG = "tradingbot-banner"  # of the cells that say where a run ended
MOST_LINES = 400  # of one output that the page shows; the notebook beside it holds them all
LONGEST_LINE = 2_000  # characters of one line that the page shows
WIDGET_TYPE = "application/vnd.jupyter.widget-view+json"
VERDICTS = {"failed": -2, "warning": -1, "ok": 0, "not applicable": 1}  # in the order in which they are shown
WORDS = {"passed": "PASSED", "failed": "FAILED", "incomplete": "INCOMPLETE", "running": "RUNNING"}

STYLE = """
:root { color-scheme: light; }
body { margin: 0 auto; max-width: 1280px; padding: 0 24px 48px; box-sizing: border-box; color: #1b1f24;
  background: #fff; font: 15px/1.5 system-ui, "Segoe UI", "DejaVu Sans", Arial, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 26px; margin: 24px 0 12px; } h2 { font-size: 20px; margin: 28px 0 8px; } h3 { font-size: 17px; }
p { margin: 8px 0; max-width: 100ch; } a { color: #0550ae; } img, svg { max-width: 100%; height: auto; }
pre { font: 12px/1.45 "DejaVu Sans Mono", Menlo, Consolas, monospace; white-space: pre-wrap; overflow-wrap: anywhere;
  margin: 6px 0; } code { font-family: "DejaVu Sans Mono", Menlo, Consolas, monospace; font-size: 90%; }
table { border-collapse: collapse; margin: 8px 0; font-size: 13px; max-width: 100%; }
th, td { border: 1px solid #d0d7de; padding: 3px 8px; text-align: left; vertical-align: top; }
th { background: #f3f5f7; overflow-wrap: normal; } td { min-width: 4ch; } .whole { white-space: nowrap; }
table.findings td:nth-child(-n+2), table.findings td:last-child { white-space: nowrap; }
table.dataframe td { text-align: right; font-variant-numeric: tabular-nums; }
.verdict { border-left: 8px solid; padding: 10px 16px; margin: 12px 0; background: #f6f8fa; }
.verdict strong { font-size: 20px; margin-right: 10px; } .verdict pre { background: none; }
.verdict.passed { border-color: #0072b2; } .verdict.failed { border-color: #d55e00; }
.verdict.incomplete { border-color: #e69f00; } .failed > strong, .findings td.failed { color: #a83e00; }
.findings td.failed, .findings td.warning { font-weight: 600; } .findings td.warning { color: #7a5200; }
.passed > strong { color: #00517f; } .incomplete > strong { color: #7a5200; }
.stamp { color: #57606a; font-size: 13px; max-width: none; } .stamp th { font-weight: 500; white-space: nowrap; }
.error pre, .output_error pre { border-left: 4px solid #d55e00; background: #fff6f0; padding: 8px 12px; }
.output_stderr pre { border-left: 4px solid #e69f00; padding-left: 10px; }
.note { border-left: 4px solid #e69f00; padding: 4px 12px; background: #fffaf0; }
"""
POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; font-src data:; form-action 'none'; base-uri 'none'"
)


def utc_text(ts_ms: int | None) -> str:
    """Return a time as people read it, to the second, in UTC with its date."""
    return "" if ts_ms is None else datetime.fromtimestamp(ts_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def took_text(record: Mapping[str, Any]) -> str:
    """Return how long a run took."""
    if record.get("ended_ms") is None:
        return ""
    seconds = max(record["ended_ms"] - record["started_ms"], 0) / 1000
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"


def shown(value: Any) -> str:
    """Return a parameter's value as it is given on the command line."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(shown, value)) if isinstance(value, list | tuple) else str(value)


def given_text(parameters: Mapping[str, Any]) -> str:
    """Return parameters as the words of a command."""
    return " ".join(f"-p {shlex.quote(f'{name}={shown(value)}')}" for name, value in parameters.items())


def page(title: str, body: str) -> str:
    """Return a whole page. Its policy forbids the browser every script, and everything that would be fetched."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_text(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def findings_table(records: Iterable[Mapping[str, Any]]) -> str:
    """Return checks as an HTML table, failures first: verdict, name, what was found, what to do, how long it took."""
    rows = []
    for record in sorted(records, key=lambda record: VERDICTS.get(str(record["verdict"]), 0)):
        verdict, fix = str(record["verdict"]), str(record.get("fix", ""))
        if record.get("profile"):
            fix = f"{fix}\nrollback that helps: tradingbot rollback {record['profile']}".strip()
        fix = _text(fix).replace("\n", "<br>") if verdict in ("failed", "warning") else ""
        cells = [f'<td class="{_text(verdict)}">{_text(verdict.upper())}</td>']
        texts = (
            _text(record["name"]),
            _whole_options(_text(record["says"])),
            _whole_options(fix),
            f"{float(record.get('seconds', 0)):.1f} s",
        )
        rows.append([*cells, *(f"<td>{text}</td>" for text in texts)])
    if not rows:
        return "<p>no checks</p>"
    heads = [f"<th>{word}</th>" for word in ("verdict", "check", "what was found", "what to do", "took")]
    for place, nothing in ((4, "<td>0.0 s</td>"), (3, "<td></td>")):
        if all(row[place] == nothing for row in rows):
            for row in [heads, *rows]:
                del row[place]
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    return f'<table class="findings"><thead><tr>{"".join(heads)}</tr></thead><tbody>{body}</tbody></table>'


def _whole_options(text: str) -> str:
    """Keep options of commands in one line: a browser breaks them behind their dashes."""
    return re.sub(r"--[\w-]+", r'<span class="whole">\g<0></span>', text)


def report_html(notebook: Any, record: Mapping[str, Any], index: str | None = "index.html") -> str:
    """Return the page of an executed notebook under its record; the notebook itself is left as it is.

    Code is not shown, nor what needs a kernel; long outputs are cut in the middle, and say so.
    """
    title = record["title"] or record["notebook"]
    parts = [f"<h1>{_text(title)}</h1>", _verdict(record)]
    if record["findings"]:
        parts.append(findings_table(record["findings"]))
    body = _body(notebook, title, record["findings"])
    parts += [_short_stamp(record, index), body, "<h2>This run</h2>", _stamp(record)]
    return page(f"{title}: {WORDS[record['verdict']]}", "\n".join(parts))


def _verdict(record: Mapping[str, Any]) -> str:
    says = f" <span>{_text(record['says'])}</span>" if record["says"] else ""
    text = f'<div class="verdict {record["verdict"]}"><strong>{WORDS[record["verdict"]]}</strong>{says}'
    if record["error"]:
        text += f"<pre>{_text(_cut(record['error']))}</pre>"
    return f"{text}</div>"


def _short_stamp(record: Mapping[str, Any], index: str | None) -> str:
    """Return in one line when and where this was; the whole stamp stands at the end, behind what was asked for."""
    commit = f" ({record['commit'][:12]})" if record["commit"] else ""
    facts = (
        utc_text(record["started_ms"]), took_text(record), record["state"],
        f"session {record['session']}" if record["session"] else "", f"version {record['version']}{commit}",
        given_text(record["parameters"]),
    )  # fmt: skip
    link = f' · <a href="{escape(index)}">all reports</a>' if index else ""
    return f'<p class="stamp">{" · ".join(_text(fact) for fact in facts if fact)}{link}</p>'


def _stamp(record: Mapping[str, Any]) -> str:
    parameters = given_text(record["parameters"])
    commit = record["commit"] or "not a checkout"
    rows = {
        "run": f"{utc_text(record['started_ms'])} to {utc_text(record['ended_ms'])}, {took_text(record)}",
        "parameters given": parameters or "none: the notebook's own defaults",
        "home, state": f"{record['home']}, {record['state']}",
        "version, commit": f"{record['version']}, {commit}",
        "settings' fingerprint": _fingerprints(record),
        "notebook": f"{record['notebook']}, as executed: {record['files']['notebook']}",
    }
    text = "".join(f"<tr><th>{name}</th><td>{_text(value)}</td></tr>" for name, value in rows.items())
    return f'<table class="stamp">{text}</table>'


def _fingerprints(record: Mapping[str, Any]) -> str:
    """Say which settings the bot's session went by, and whether the command's own are the same."""
    own, theirs = record["settings_fingerprint"], record["session_fingerprint"]
    words = f"{own}, of this command" if own else f"this command's are not readable: {record['settings_error']}"
    if not record["session"]:
        return f"{words}; no bot had told of itself there"
    session = f"{theirs or 'not told'}, of session {record['session']}, the last one there when this run began"
    return f"{session}; this command's own are the same" if own == theirs else f"{session}; {words}"


def _body(notebook: Any, title: str, findings: Iterable[Mapping[str, Any]]) -> str:
    """Return what the cells show, by nbconvert's plainest template; checks that stand at the top are not repeated."""
    from nbconvert import HTMLExporter

    notebook = copy.deepcopy(notebook)
    notebook.metadata.pop("widgets", None)
    if notebook.cells and BANNER_TAG in notebook.cells[0].metadata.get("tags", []):
        del notebook.cells[0]  # the page begins with it
    stated = set(map(_stated, findings))
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and title and cell.source.startswith(f"# {title}"):
            cell.source = cell.source.removeprefix(f"# {title}").strip()
            title = ""  # it stands over the page already
        elif cell.cell_type == "code":
            cell.outputs = [fitted for output in cell.outputs if (fitted := _fitted(output, stated))]
    exporter = HTMLExporter(
        template_name="basic", exclude_input=True, exclude_input_prompt=True, exclude_output_prompt=True,
        exclude_anchor_links=True, embed_images=True,
    )  # fmt: skip
    body, _ = exporter.from_notebook_node(notebook)
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f]", "", str(body))


def joined(outputs: Iterable[Any]) -> list[Any]:
    """Return outputs with what was printed in pieces as one; a kernel sends what is printed as it comes."""
    whole: list[Any] = []
    for output in outputs:
        last = whole[-1] if whole else None
        if last is not None and output.output_type == last.output_type == "stream" and output.name == last.name:
            last.text += output.text
        else:
            whole.append(output)
    return whole


def _stated(record: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return what tells one check's row from another's."""
    return str(record["verdict"]), str(record["name"]), str(record["says"])


def _fitted(output: Any, stated: set[tuple[str, str, str]]) -> Any:
    """Return an output as the page shows it, None where it is nothing without a kernel."""
    if output.output_type == "error":
        output.traceback = [_cut(plain("\n".join(output.traceback))) or f"{output.ename}: {output.evalue}"]
        return output
    if output.output_type == "stream":
        output.text = _cut(_without_controls(output.text))
        return output
    if WIDGET_TYPE in output.data:
        return None
    if FINDINGS_TYPE in output.data:
        output.data = {"text/plain": "The checks stand at the top of this page."}
    own = output.metadata.get(PAGE_KEY, {})
    if own.get("checks") and stated.issuperset(map(_stated, own["checks"])):
        output.data = {"text/html": own["instead"]}
    if "text/plain" in output.data:
        output.data["text/plain"] = _cut(_without_controls(output.data["text/plain"]))
    return output


def plain(text: str) -> str:
    """Return a text without the escapes that colour it."""
    return re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text)


def _cut(text: str) -> str:
    """Return a text without the middle of many lines, and without the ends of very long ones."""
    lines = text.split("\n")
    if len(lines) > MOST_LINES:
        half = MOST_LINES // 2
        left = f"... {len(lines) - MOST_LINES:,} lines are left out here; the executed notebook holds them ..."
        lines = [*lines[:half], left, *lines[-half:]]
    return "\n".join(line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]} ..." for line in lines)


def _without_controls(text: str) -> str:
    """Return a text without what commands a terminal; colours go to nbconvert, which makes classes of them."""
    text = re.sub(r"\x1b\][^\x07\x1b]*(\x07|\x1b\\)?", "", text)  # titles, links
    return re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f-\x9f]", "", text)


def _text(value: Any) -> str:
    """Return text for HTML, of printable characters."""
    return escape("".join(c if c.isprintable() or c == "\n" else "?" for c in str(value)))
