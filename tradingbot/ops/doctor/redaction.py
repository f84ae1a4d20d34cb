"""Secrets taken out of texts, in whatever encoding they stand there; paths, users and hosts made shorter."""

from __future__ import annotations

import base64
import contextlib
import getpass
import html
import re
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import quote

__all__ = ["Redactor", "secrets_of"]

HIDDEN = "***"
ESCAPES = r"\\{0,8}"  # backslashes before a character that is quoted, and that quoted again
SHORT = 6  # characters: a shorter secret is taken out only where it stands as a word of its own
NAMES = re.compile(r"(?i)(api_?key|secret|passw|passphrase|token|credential|private|_key$|_pat$|auth)")
PATTERNS = (
    re.compile(
        r"(?i)((?:api[-_]?key|secret|signature|passphrase|password|passwd|token|listen[-_]?key)"
        r"\\?[\"']?\s{0,4}(?:=|:|%3D|%3A)\s{0,4}\\?[\"']?)(?!null\b|true\b|false\b|none\b|\*\*\*)([^\s\"'\\&,;}\])]+)"
    ),
    re.compile(r"(?i)(authorization\\?[\"']?\s*[:=]\s*\\?[\"']?(?:bearer|basic)?\s*)([^\s\"'\\,;}]+)"),
    re.compile(r"(?i)(\b(?:bearer|basic)\s{1,4})([\w+/=.~-]{8,})"),
    re.compile(r"(?i)(\b[a-z][a-z0-9+.-]{0,20}://)([^\s/@\"']{1,200}:[^\s/@\"']{0,200})(?=@)"),
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
        parts = []
        for secret in sorted(set(secrets), key=len, reverse=True):
            spelt = "".join(map(_character, secret))
            parts.append(spelt if len(secret) >= SHORT else rf"(?<!\w){spelt}(?!\w)")
            parts += [re.escape(form) for form in sorted(_forms(secret), key=len, reverse=True)]
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


def _character(character: str) -> str:
    """Return a pattern of one character: plain, or escaped as in JSON, Python, URLs and HTML, once or often."""
    found = {ESCAPES + re.escape(character)}
    if character == "\\":
        found = {r"\\{1,8}"}
    for each in {character, character.lower(), character.upper()}:
        units = each.encode("utf-16-be", "surrogatepass")
        points = [units[place : place + 2].hex() for place in range(0, len(units), 2)]
        found.add("".join(rf"\\{{1,8}}u{point}" for point in points))
        if len(each) == 1 and ord(each) < 256:
            found.add(rf"\\{{1,8}}x{ord(each):02x}")
        found.add("".join(f"%(?:25){{0,4}}{byte:02x}" for byte in each.encode("utf-8", "surrogateescape")))
        found.add("".join(f"&#0*{ord(one)};" for one in each))
    if html.escape(character) != character:
        found.add(re.escape(html.escape(character)))
    if character == " ":
        found.add(r"\+")
    return f"(?:{'|'.join(sorted(found, key=len, reverse=True))})"


def _forms(secret: str) -> set[str]:
    """Return how a secret stands as a whole in other digits: hexadecimal, and inside of base64; also backwards."""
    raw = secret.encode("utf-8", "surrogateescape")
    forms = {raw.hex(), secret[::-1]}
    for encode in (base64.standard_b64encode, base64.urlsafe_b64encode):
        for shift in range(3):  # where it begins inside of something longer: what is the same whatever stands around it
            text = encode(b"\0" * shift + raw).decode().rstrip("=")
            bits = (len(raw) + shift) * 8
            forms.add(text[(shift * 8 + 5) // 6 : bits // 6])
        forms |= {encode(raw).decode(), encode(raw).decode().rstrip("=")}
    forms |= {quote(form, safe="") for form in forms}
    return {form for form in forms if len(form) >= SHORT}


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
