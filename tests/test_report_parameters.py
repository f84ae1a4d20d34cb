"""Parameters of notebooks: read without running anything, given as text, refused where they are not declared."""

from __future__ import annotations

import ast
import base64
import json
import random
import string
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.made_notebooks import made
from tradingbot.errors import UsageError
from tradingbot.ops.report.notebooks import find_notebook
from tradingbot.ops.report.parameters import give, read_parameters

CELL = """\
# what it looks at
from typing import Optional
home: str = ""  # the folder
dry_run: bool = True  # nothing is changed
last_minutes: int = 15  # minutes, up to # now
ratio: float = 0.5
limit: Optional[float] = None  # a limit
symbols: list[str] = []  # symbols
thresholds: list[float] = [0.98, 0.985]  # thresholds
old = 3
ways: list = [0.5]  # a list of what its default holds
"""
DECLARED = read_parameters(CELL)


def test_a_cell_is_read_with_types_defaults_and_meanings() -> None:
    """Without running it."""
    assert list(DECLARED) == [
        "home",
        "dry_run",
        "last_minutes",
        "ratio",
        "limit",
        "symbols",
        "thresholds",
        "old",
        "ways",
    ]
    assert DECLARED["last_minutes"].to_record() == {"type": "int", "default": 15, "help": "minutes, up to # now"}
    assert DECLARED["limit"].to_record() == {"type": "Optional[float]", "default": None, "help": "a limit"}
    assert DECLARED["thresholds"].default == [0.98, 0.985]
    assert DECLARED["old"].kind == "int"


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("dry_run=false", False), ("dry_run=False", False), ("dry_run=0", False), ("dry_run=on", True),
        ("last_minutes=-3", -3), ("last_minutes= 7 ", 7), ("ratio=1", 1.0), ("ratio=1e-3", 0.001), ("ratio=.5", 0.5),
        ("limit=none", None), ("limit=", None), ("limit=2.5", 2.5), ("home=a=b", "a=b"), ("home=", ""),
        ("home=none", "none"),
        ("symbols=BTC/USDT, ETH/USDT", ["BTC/USDT", "ETH/USDT"]), ("symbols=", []), ('symbols=["a,b"]', ["a,b"]),
        ("thresholds=0.9,1", [0.9, 1.0]), ("thresholds=[0.9, 1]", [0.9, 1.0]), (" home =x", "x"), ("ways=2", [2.0]),
    ],
)  # fmt: skip
def test_a_text_becomes_a_value_of_the_declared_type(word: str, value: Any) -> None:
    """'false' is False, and no text that is true."""
    (got,) = give(DECLARED, [word], {}).values()
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    "word",
    ["dry_run=maybe", "dry_run=", "dry_run=none", "last_minutes=1.5", "last_minutes=1e3", "last_minutes=１",
     "ratio=nan", "ratio=inf", "ratio=1e999", "ratio=1_0", "thresholds=0.9,x", "thresholds=[[1]]", "thresholds=[1",
     "home=\udcff", "last_minutes=" + "9" * 40, "home=" + "x" * 10_001, "last_minutes=__import__('os')",
     "thresholds=[" * 5_000],
)  # fmt: skip
def test_a_text_that_is_none_of_the_type_is_refused_in_one_short_line(word: str) -> None:
    """It names the parameter and what it takes."""
    with pytest.raises(UsageError, match=r"^parameter \w+ = .* is not allowed: it takes ") as caught:
        give(DECLARED, [word], {})
    assert len(str(caught.value)) < 250


def test_a_name_that_is_not_declared_is_answered_by_the_nearest() -> None:
    """papermill would only warn."""
    with pytest.raises(UsageError, match="no parameter 'last_minute': did you mean last_minutes"):
        give(DECLARED, ["last_minute=3"], {})
    with pytest.raises(UsageError, match="there are home, dry_run"):
        give(DECLARED, ["zzz=3"], {})
    with pytest.raises(UsageError, match="not name=value"):
        give(DECLARED, ["home"], {})


def hostile_texts(count: int) -> list[str]:
    """Make texts of what could mean something to Python, to a shell, to a notebook or to a page; the same each time."""
    dice = random.Random(25)
    bits = [
        "'", '"', "'''", '"""', "\\", "\n", "\r", "\t", "#", "=", ";", ":", "{", "}", "{pm}", "{0}", "%s", "$(id)",
        "`id`",
        "__import__('os').system('id')", "import os", "home", "dry_run", "=1\nimport os\n", "!touch x", "%run x",
        "\x1b[31m", "\x00", "\u2028", "\x85", "<script>", "../..", "\\N{BULLET}", "\\x41", "\udc80", "é", "🙂", "True",
    ]  # fmt: skip
    letters = string.ascii_letters + string.digits
    return [
        "".join(dice.choice([*bits, dice.choice(letters)]) for _ in range(dice.randint(1, 12))) for _ in range(count)
    ]


def test_a_thousand_hostile_names_and_values_run_nothing() -> None:
    """A name is refused; a value is refused, or stands in the notebook as a literal of itself, and as nothing else."""
    from papermill.translators import PythonTranslator

    taken = 0
    for text in hostile_texts(1_000):
        if text.split("=")[0].strip() not in DECLARED:
            with pytest.raises(UsageError):
                give(DECLARED, [f"{text}=1"], {})
        for name in ("home", "symbols", "dry_run", "last_minutes", "limit", "thresholds"):
            try:
                values = give(DECLARED, [f"{name}={text}"], {})
            except UsageError:
                continue
            (statement,) = ast.parse(PythonTranslator.codify(values)).body
            assert isinstance(statement, ast.Assign)
            assert isinstance(statement.targets[0], ast.Name)
            assert statement.targets[0].id == name
            assert ast.literal_eval(statement.value) == values[name]
            taken += 1
    assert taken > 500


@pytest.mark.parametrize(
    "form", [lambda s: s, lambda s: f"x{s}y", lambda s: base64.b64encode(s.encode()).decode(), quote]
)
def test_a_secret_of_the_environment_is_refused_and_not_repeated(form: Any) -> None:
    """It would stand in the report: as it is, within more, in base64, url-encoded."""
    secret = "s3cret/+value 77"
    with pytest.raises(UsageError, match="holds what EXCHANGE_API_KEY of the environment holds") as caught:
        give(DECLARED, [f"home={form(secret)}"], {"EXCHANGE_API_KEY": secret, "HOME": "/root"})
    assert form(secret) not in str(caught.value)
    assert give(DECLARED, ["home=/root"], {"EXCHANGE_API_KEY": secret, "HOME": "/root"}) == {"home": "/root"}


@pytest.mark.parametrize(
    "name", ["api_key", "apikey", "secret", "EXCHANGE_SECRET", "password", "token", "key", "passphrase"]
)
def test_a_parameter_by_a_secrets_name_is_refused(name: str) -> None:
    """Whatever it says, and whether or not the notebook declares it."""
    declared = read_parameters(f"{name}: str = ''")
    with pytest.raises(UsageError, match="secret's name") as caught:
        give(declared, [f"{name}=hunter2"], {})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "cell",
    [
        "n = f()",
        "import os; os.system('x')",
        "n: int = 1 + x",
        "x = y = 1",
        "def f(): pass",
        "n: object = 1",
        "(",
        "n: int",
    ],
)
def test_a_cell_that_is_more_than_literals_is_refused(cell: str) -> None:
    """What it would compute is not known without running it."""
    if cell.startswith("import os; "):
        with pytest.raises(UsageError, match="no parameter"):
            read_parameters(cell)
        return
    with pytest.raises(UsageError):
        read_parameters(cell)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda nb: "{", "is no notebook"),
        (lambda nb: "[]", "no notebook of format 4"),
        (lambda nb: json.dumps(nb | {"nbformat": 3}), "no notebook of format 4"),
        (lambda nb: json.dumps(nb | {"cells": [1]}), "its cells are none"),
        (lambda nb: json.dumps(nb | {"metadata": {"kernelspec": {"name": "ir"}}}), "for the kernel 'ir'"),
        (lambda nb: json.dumps(nb | {"cells": nb["cells"] * 2}), "more than one cell with the tag parameters"),
        (lambda nb: "[" * 100_000, "is no notebook"),
    ],
)
def test_a_notebook_that_cannot_be_run_is_said_to_be_so(tmp_path: Path, change: Any, complaint: str) -> None:
    """Before anything is started."""
    path = made(tmp_path / "x.ipynb", "1")
    assert find_notebook(str(path)).title == "Made for x"
    path.write_text(change(json.loads(path.read_text())))
    with pytest.raises(UsageError, match=complaint):
        find_notebook(str(path))


@pytest.mark.parametrize("name", ["nope", "", "../x", "\x00", "x" * 5_000, "/nowhere/x.ipynb", "/tmp", "\x1b[2J.ipynb"])
def test_a_name_that_is_no_notebook_is_refused(name: str) -> None:
    """In one line."""
    with pytest.raises(UsageError, match="there is no notebook"):
        find_notebook(name)
