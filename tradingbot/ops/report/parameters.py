"""The parameters of a notebook: read from its parameters cell without running it, and given by words of a command.

What is given must be declared there, takes the type of its default, and is no secret: it would stand in the report.
"""

from __future__ import annotations

import ast
import base64
import difflib
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from tradingbot.errors import UsageError

__all__ = ["Parameter", "give", "is_secret_name", "read_parameters"]

KINDS = ("bool", "int", "float", "str")
LONGEST = 10_000  # characters of a value
_SECRET = re.compile(
    r"(?i)(secret|passw(or)?d|passphrase|token|credential|api_?key|private_?key|signature|(^|_)(key|pwd)(_|$))"
)
_SPELLINGS = {
    "bool": {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
}


@dataclass(frozen=True, slots=True)
class Parameter:
    """Describe one line of a parameters cell.

    `kind` is bool, int, float or str, or list[...] of one of these; `optional` says whether None is allowed.
    """

    name: str
    kind: str
    optional: bool
    default: Any
    help: str

    @property
    def allowed(self) -> str:
        """Say in words which values are allowed."""
        kind = self.kind.removeprefix("list[").removesuffix("]")
        word = {"bool": "true or false", "int": "a whole number", "float": "a number", "str": "a text"}[kind]
        if self.kind != kind:
            word = f"a list, each item {word}, as in A,B"
        return f"{word}, or none" if self.optional else word

    def to_record(self) -> dict[str, Any]:
        """Return a JSON object."""
        kind = f"Optional[{self.kind}]" if self.optional else self.kind
        return {"type": kind, "default": self.default, "help": self.help}


def read_parameters(source: str) -> dict[str, Parameter]:
    """Return the parameters that a cell declares, by name; nothing of it is executed.

    Each stands on a line of its own as `name: type = literal  # what it means`. Raises UsageError for anything else.
    """
    try:
        statements = ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UsageError(f"its parameters cell is no Python: {error}") from None
    lines = source.splitlines()
    found: dict[str, Parameter] = {}
    for statement in statements:
        if isinstance(statement, ast.Import | ast.ImportFrom) or (
            isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
        ):
            continue
        parameter = _parameter(statement, lines)
        found[parameter.name] = parameter
    return found


def _parameter(statement: ast.stmt, lines: list[str]) -> Parameter:
    annotation = ""
    if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and statement.value:
        name, value, annotation = statement.target.id, statement.value, ast.unparse(statement.annotation)
    elif (
        isinstance(statement, ast.Assign) and len(statement.targets) == 1 and isinstance(statement.targets[0], ast.Name)
    ):
        name, value = statement.targets[0].id, statement.value
    else:
        raise UsageError(f"line {statement.lineno} of its parameters cell is no parameter, as n: int = 1 is")
    try:
        default = ast.literal_eval(value)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        raise UsageError(f"the default of its parameter {name} is no literal") from None
    last = lines[(statement.end_lineno or statement.lineno) - 1].encode()[statement.end_col_offset or 0 :].decode()
    text = last.partition("#")[2].strip()
    kind, optional = _kind(annotation, default)
    if kind is None:
        raise UsageError(
            f"its parameter {name} is of a type that cannot be given: {annotation or type(default).__name__}"
        )
    return Parameter(name, kind, optional, default, text)


def _kind(annotation: str, default: Any) -> tuple[str | None, bool]:
    """Return the kind of a parameter, None where it is none of ours, and whether None is allowed."""
    text = annotation.replace(" ", "").replace("typing.", "")
    optional = default is None
    for pattern in (r"Optional\[(.*)\]", r"(.*)\|None", r"None\|(.*)"):
        match = re.fullmatch(pattern, text)
        if match:
            text, optional = match.group(1), True
    text = re.sub(r"^(List|tuple|Tuple|Sequence)\[", "list[", text).replace(",...]", "]")
    if text in ("", "list") and isinstance(default, list | tuple):
        kinds = {type(item).__name__ for item in default}
        text = f"list[{kinds.pop()}]" if len(kinds) == 1 else "list[str]"
    text = text or ("str" if default is None else type(default).__name__)
    text = "list[str]" if text == "list" else text
    return (text if text.removeprefix("list[").removesuffix("]") in KINDS else None), optional


def give(parameters: Mapping[str, Parameter], assignments: Iterable[str], environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the values of `name=text` words, by name, each of the type that is declared; the later of two wins.

    Raises UsageError for a name that is not declared, a value that is not allowed, and for what is, or holds, a secret
    of the environment; no value that could be one is repeated.
    """
    values: dict[str, Any] = {}
    secrets = _secrets(environ)
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        name = name.strip()
        _refuse_secret(name, assignment, secrets)
        if not equals:
            raise UsageError(f"-p {assignment:.80} is not name=value, as in -p last_minutes=15")
        if name not in parameters:
            near = difflib.get_close_matches(name[:80], parameters, 1, 0.5)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(parameters) or 'none'}"
            raise UsageError(f"there is no parameter {name!r:.80}: {hint}")
        values[name] = _value(parameters[name], text)
    return values


def _value(parameter: Parameter, text: str) -> Any:
    """Return what a text says, as a value of the parameter's type."""
    if len(text) <= LONGEST:
        try:
            text.encode()
            if parameter.optional and text.strip().lower() in ("none", "null", ""):
                return None
            if parameter.kind.startswith("list["):
                return _items(parameter.kind.removeprefix("list[").removesuffix("]"), text)
            return _scalar(parameter.kind, text)
        except (ValueError, RecursionError):
            pass
    raise UsageError(f"parameter {parameter.name} = {text!r:.80} is not allowed: it takes {parameter.allowed}")


def _items(kind: str, text: str) -> list[Any]:
    if not text.strip():
        return []
    if text.strip().startswith("["):
        given = json.loads(text)
        return [_scalar(kind, item if isinstance(item, str) else json.dumps(item)) for item in given]
    return [_scalar(kind, item.strip()) for item in text.split(",")]


def _scalar(kind: str, text: str) -> Any:
    """Return one value; raise ValueError where the text is none of its kind."""
    if kind == "str":
        return text
    text = text.strip()
    if kind == "bool":
        if text.lower() not in _SPELLINGS["bool"]:
            raise ValueError(text)
        return _SPELLINGS["bool"][text.lower()]
    if kind == "int":
        if not re.fullmatch(r"[-+]?[0-9]{1,18}", text):
            raise ValueError(text)
        return int(text)
    if not re.fullmatch(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]{1,3})?", text):
        raise ValueError(text)
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def is_secret_name(name: str) -> bool:
    """Return whether a name is one that credentials go by."""
    return _SECRET.search(name) is not None


def _secrets(environ: Mapping[str, str]) -> dict[str, str]:
    """Return each credential of the environment, as it is and as it could be spelt, with its variable's name."""
    found = {}
    for name, value in environ.items():
        if is_secret_name(name) and len(value) >= 6:
            raw = value.encode("utf-8", "surrogateescape")
            coded = base64.b64encode(raw).decode()
            for form in (value, quote(raw), quote(raw, safe=""), coded, coded.rstrip("=")):
                found[form] = name
    return found


def _refuse_secret(name: str, assignment: str, secrets: Mapping[str, str]) -> None:
    if is_secret_name(name):
        raise UsageError(
            f"parameter {name:.80} goes by a secret's name, and parameters stand in the report: nothing was run"
        )
    for form, variable in secrets.items():
        if form in assignment:
            raise UsageError(
                f"parameter {name[:80] if form not in name else '?'} holds what {variable} of the environment holds,"
                " and parameters stand in the report: nothing was run"
            )
    if "-----BEGIN" in assignment and "PRIVATE KEY" in assignment:
        raise UsageError("a parameter holds a private key, and parameters stand in the report: nothing was run")
