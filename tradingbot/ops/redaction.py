"""Secrets taken out of texts, in whatever encoding they stand there; paths, users and hosts made shorter."""

from __future__ import annotations

import base64
import contextlib
import getpass
import json
import re
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import quote, quote_plus

__all__ = ["Redactor", "secrets_of"]

HIDDEN = "***"
SHORT = 6  # characters: a shorter secret is taken out only where it stands as a word of its own
NAMES = re.compile(r"(?i)(api_?key|secret|passw|passphrase|token|credential|private|_key$|_pat$|auth)")
PATTERNS = (
    re.compile(
        r"(?i)([\w-]*(?:api[-_]?key|secret|signature|passphrase|password|passwd|token|listen[-_]?key)"
        r"\\?[\"']?\s*(?:=|:|%3D|%3A)\s*\\?[\"']?)(?!null\b|true\b|false\b|none\b|\*\*\*)([^\s\"'\\&,;}\])]+)"
    ),
    re.compile(r"(?i)(authorization\\?[\"']?\s*[:=]\s*\\?[\"']?(?:bearer|basic)?\s*)([^\s\"'\\,;}]+)"),
    re.compile(r"(?i)(\b(?:bearer|basic)\s+)([\w+/=.~-]{8,})"),
    re.compile(r"(?i)(\b[a-z][a-z0-9+.-]*://)([^\s/@\"']+:[^\s/@\"']*)(?=@)"),
)


def secrets_of(environ: Mapping[str, str], credentials: Iterable[str] = ()) -> list[str]:
    """Return what must not be shown: credentials, and whatever the environment holds under the name of a secret."""
    found = {text for text in credentials if text}
    found |= {text for name, text in environ.items() if NAMES.search(name) and len(text) >= SHORT}
    return sorted(found, key=len, reverse=True)


class Redactor:
    """Take secrets out of texts, raw and encoded, and what looks like one by its name; count them."""

    def __init__(self, secrets: Iterable[str], home: Path) -> None:
        self.count = 0
        words: set[str] = set()
        shorts: set[str] = set()
        for secret in secrets:
            for form in _forms(secret):
                (words if len(form) >= SHORT else shorts).add(form)
        parts = [re.escape(word) for word in sorted(words, key=len, reverse=True)]
        parts += [rf"(?<!\w){re.escape(word)}(?!\w)" for word in sorted(shorts, key=len, reverse=True)]
        self._secrets = re.compile("|".join(parts), re.IGNORECASE) if parts else None
        self._places = _places(home)

    def text(self, text: str) -> str:
        """Return a text without secrets."""
        if self._secrets is not None:
            text = self._secrets.sub(self._hide, text)
        for pattern in PATTERNS:
            text = pattern.sub(self._hide_value, text)
        for pattern, word in self._places:
            text = pattern.sub(word, text)
        return text

    def bytes(self, data: bytes) -> bytes:
        """Return a file without secrets; what is no UTF-8 in it stays as it is."""
        return self.text(data.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")

    def _hide(self, _: re.Match[str]) -> str:
        self.count += 1
        return HIDDEN

    def _hide_value(self, found: re.Match[str]) -> str:
        self.count += 1
        return f"{found[1]}{HIDDEN}"


def _forms(secret: str) -> set[str]:
    """Return how a secret may be spelt: plainly, in a URL, in JSON, in hexadecimal digits, and inside of base64."""
    raw = secret.encode("utf-8", "surrogateescape")
    forms = {
        secret, quote(secret, safe=""), quote(secret), quote_plus(secret), json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1], repr(secret)[1:-1], raw.hex(), secret[::-1],
        quote(quote(secret, safe=""), safe=""),
    }  # fmt: skip
    for encode in (base64.standard_b64encode, base64.urlsafe_b64encode):
        for shift in range(3):  # where it begins inside of something longer: what is the same whatever stands around it
            text = encode(b"\0" * shift + raw).decode().rstrip("=")
            bits = (len(raw) + shift) * 8
            whole = text[(shift * 8 + 5) // 6 : bits // 6]
            if len(whole) >= SHORT:
                forms |= {whole, quote(whole, safe="")}
        forms.add(encode(raw).decode())
        forms.add(encode(raw).decode().rstrip("="))
        if len(raw) >= SHORT:
            forms.add(quote(encode(raw).decode(), safe=""))
    return {form for form in forms if len(form) >= min(3, len(secret))}


def _places(home: Path) -> list[tuple[re.Pattern[str], str]]:
    """Return what tells of this machine and its user, with what stands in its place."""
    found = [(str(home), "HOME"), (str(home.resolve()), "HOME")]
    with contextlib.suppress(RuntimeError):
        found.append((str(Path.home()), "~"))
    rows = [(re.compile(re.escape(text) + r"(?![\w-])"), word) for text, word in found if len(text) > 1]
    names = [(socket.gethostname(), "HOST")]
    with contextlib.suppress(KeyError, OSError):
        names.append((getpass.getuser(), "USER"))
    rows += [
        (re.compile(rf"(?<![\w.-]){re.escape(n)}(?![\w-])"), word) for n, word in names if len(n) > 2 and n != "root"
    ]
    return rows
