"""Bundle: what a bug report needs, no secret in any encoding; whatever is broken, and over nothing that is there."""

from __future__ import annotations

import base64
import getpass
import gzip
import json
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, quote_plus

import orjson
import pytest

from tests.patients import status
from tests.test_live import call, command
from tradingbot.errors import UsageError
from tradingbot.io.home import Home
from tradingbot.ops.doctor import bundle
from tradingbot.ops.doctor.redaction import Redactor, secrets_of

CANARY = {
    "TRADINGBOT_API_KEY": "canary/Key+1 &more=ü",
    "TRADINGBOT_API_SECRET": "canarySECRETcanary0123456789",
    "TRADINGBOT_API_PASSWORD": 'canary-pass\\word"quote',
    "GITHUB_TOKEN": "canaryForeignToken42",
}
ENCODINGS: dict[str, Callable[[str], str]] = {
    "raw": str,
    "upper": str.upper,
    "url": lambda text: quote(text, safe=""),
    "plus": quote_plus,
    "json": lambda text: json.dumps(text)[1:-1],
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64 in a header": lambda text: base64.b64encode(f"user:{text}".encode()).decode(),
    "base64 in a text": lambda text: base64.urlsafe_b64encode(f"ab{text}cd".encode()).decode(),
    "hexadecimal": lambda text: text.encode().hex(),
    "repr": lambda text: repr(text)[1:-1],
}


def members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        found = {}
        for each in archive:
            file = archive.extractfile(each)
            assert file is not None
            assert (each.uid, each.gid, each.uname, each.mode, each.mtime) == (0, 0, "", 0o600, 0)
            found[each.name.removeprefix("tradingbot-bundle/")] = file.read()
        return found


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("secret", CANARY.values())
def test_a_secret_is_taken_out_in_every_encoding(secret: str, encoding: str) -> None:
    """Also inside of something longer; what stands around it stays."""
    spelt = ENCODINGS[encoding](secret)
    redactor = Redactor(secrets_of(CANARY), Path("/nowhere"))
    clean = redactor.text(f"before [{spelt}] after")
    assert clean.startswith("before [")
    assert clean.endswith("] after")
    middle = clean[len("before [") : -len("] after")]
    kept = middle.replace("***", "")
    assert len(kept) <= 12, middle  # of base64 around it: some characters at the edges
    assert redactor.count >= 1


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("GET /order?symbol=X&signature=ab12cd&timestamp=5", "GET /order?symbol=X&signature=***&timestamp=5"),
        ('{"apiKey": "abcdef", "price": 5}', '{"apiKey": "***", "price": 5}'),
        ('{\\"secret\\": \\"abcdef\\"}', '{\\"secret\\": \\"***\\"}'),
        ("X-MBX-APIKEY: abcdef", "X-MBX-APIKEY: ***"),
        ("Authorization: Bearer abcdefghij", "Authorization: Bearer ***"),
        ("https://user:pass@example.com/x", "https://***@example.com/x"),
        ('{"password": null}', '{"password": null}'),
        ("BUY TRIGGER symbol=BTC/USDT last=98.2", "BUY TRIGGER symbol=BTC/USDT last=98.2"),
    ],
)
def test_what_looks_like_a_secret_by_its_name_is_taken_out(text: str, clean: str) -> None:
    """Signatures, keys and passwords that no setting knows of; nothing else."""
    assert Redactor([], Path("/nowhere")).text(text) == clean


@pytest.mark.parametrize("text", ["\\", "%25", "c", "a", '"password":', "a.b-", "token=", "x://y:", "basic ", "&#0"])
def test_hostile_texts_take_no_longer_than_others(text: str) -> None:
    """A long run of whatever a pattern begins with is read to its end: no pattern goes back and forth over it."""
    Redactor(secrets_of(CANARY), Path("/nowhere")).text(text * (200_000 // len(text)))


def test_a_short_secret_is_taken_out_as_a_word_alone() -> None:
    """A secret of three letters must not eat every word that holds them."""
    assert Redactor(["key"], Path("/nowhere")).text("key=1 monkey") == "***=1 monkey"


def test_paths_and_names_of_this_machine_are_made_shorter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The home, the user's folder and name."""
    monkeypatch.setattr(getpass, "getuser", lambda: "jane")
    monkeypatch.setattr(Path, "home", lambda: Path("/home/jane"))
    text = Redactor([], tmp_path).text(f"{tmp_path}/state /home/jane/x jane janet {tmp_path}2")
    assert text == f"HOME/state ~/x USER janet {tmp_path}2"


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the home of a bot that has lived, been rolled back, and leaked in all of its files."""
    home = tmp_path_factory.mktemp("lived")
    assert call(home, "--virtual", "--duration", "60", "--no-dashboard").returncode == 0
    assert call(home, "rollback", "retry", "--yes", "--why", f"drill {CANARY['TRADINGBOT_API_KEY']}").returncode == 0
    leak = " ".join(encode(secret) for secret in CANARY.values() for encode in ENCODINGS.values())
    with next((home / "logs").glob("*.log")).open("a") as log:
        log.write(f"2026-01-01T00:00:00.000Z ERROR failed {leak} signature=canarySigned0123\n")
    told = orjson.loads((home / "state" / "status.json").read_bytes())
    told["errors"] = [{"time_ms": 1, "level": "ERROR", "text": leak}]
    (home / "state" / "status.json").write_bytes(orjson.dumps(told))
    (home / "tradingbot.toml").write_text(f"# {leak}\n")
    return home


def test_it_holds_what_a_report_needs_and_no_secret(
    lived: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every byte of every member is searched, raw and encoded; the archive is the user's own and says what it holds."""
    for name, text in CANARY.items():
        monkeypatch.setenv(name, text)
    out = tmp_path / "report.tar.gz"
    done = call(lived, "bundle", "--out", str(out), "--json")
    assert done.returncode == 0, done.stderr
    told = orjson.loads(done.stdout)
    found = members(out)
    assert told["members"] == {name: len(text) for name, text in found.items()}
    assert told["redacted"] > 40
    assert {
        "doctor.txt", "doctor.json", "versions.json", "settings/effective.json", "settings/overrides.json",
        "status.json", "errors.txt", "audit.jsonl", "fsck.txt",
    } <= set(found)  # fmt: skip
    assert any(name.startswith("logs/trading_bot_") for name in found)
    assert {name.rpartition("/")[2] for name in found if name.startswith("rollbacks/")} == {
        "plan.json", "done.jsonl", "report.json", "report.txt",
    }  # fmt: skip
    everything = b"\n".join(found.values()) + gzip.decompress(out.read_bytes()) + done.stdout.encode()
    assert b"canary" not in everything.lower()
    for secret in CANARY.values():
        for encode in ENCODINGS.values():
            assert encode(secret).encode() not in everything
    assert str(lived).encode() not in everything
    assert out.stat().st_mode & 0o777 == 0o600
    for name in ("doctor.json", "versions.json", "settings/effective.json", "status.json"):
        orjson.loads(found[name])  # what is taken out leaves a document behind
    assert b"ERROR failed" in found["errors.txt"]
    assert orjson.loads(found["settings/effective.json"])["FEATURE_RETRY_BACKOFF"]["source"] == "overrides.json"


def test_it_says_where_it_is_and_what_is_inside_and_overwrites_nothing(lived: Path, tmp_path: Path) -> None:
    """A line a member; a second one of that name is refused, and so is one where nothing can be written."""
    out = tmp_path / "report.tar.gz"
    done = call(lived, "bundle", "--out", str(out))
    assert (done.returncode, f"in {out}, readable by you alone" in done.stdout) == (0, True), done.stderr
    assert "doctor.txt" in done.stdout
    before = out.read_bytes()
    done = call(lived, "bundle", "--out", str(out))
    assert (done.returncode, "is there already" in done.stderr, out.read_bytes()) == (2, True, before)
    done = call(lived, "bundle", "--out", str(tmp_path / "no" / "x"))
    assert (done.returncode, "name another place with --out" in done.stderr) == (2, True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.tar.gz"]


def test_it_works_where_every_package_is_broken(lived: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What can be read is in; what cannot says why; without --out it lies in the working directory."""
    (tmp_path / "bad").mkdir()
    for name in ("msgspec", "orjson", "zstandard", "ccxt", "rich"):
        (tmp_path / "bad" / f"{name}.py").write_text("raise ImportError('gone')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "bad"))
    work = tmp_path / "work"
    work.mkdir()
    done = subprocess.run(command(lived, "bundle"), cwd=work, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    (path,) = work.glob("tradingbot-bundle-*.tar.gz")
    found = members(path)
    assert b"orjson: ImportError: gone" in found["doctor.txt"]
    assert b"until the environment is mended" in found["fsck.txt"]
    assert "ImportError" in orjson.loads(found["settings/effective.json"])["trouble"]
    assert len([name for name in found if name.startswith("rollbacks/")]) == 4


def test_what_cannot_be_collected_keeps_nothing_else_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part that fails is named with why; hostile names of files stay inside of the archive."""
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "..\n\x1b[31mx.log").write_text("t ERROR odd\n")
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "status.json").write_bytes(orjson.dumps(status()))

    def fails(_: object) -> object:
        raise RuntimeError("no such luck")

    monkeypatch.setitem(bundle.PARTS, "versions.json", fails)
    made = bundle.make_bundle(Home(tmp_path, "test"), tmp_path / "b.tar.gz", environ={})
    found = members(made.path)
    assert found["versions.json.missing.txt"] == b"RuntimeError: no such luck\n"
    assert found["logs/.._31mx.log"] == b"t ERROR odd\n"
    assert b"t ERROR odd" in found["errors.txt"]
    assert "\x1b" not in made.text()


def test_a_full_disk_leaves_nothing_of_it_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line that says what to do; neither a torn archive nor its beginning stays."""

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bundle.os, "fsync", full)
    with pytest.raises(UsageError, match="No space left on device; name another place with --out"):
        bundle._write(tmp_path / "b.tar.gz", b"x" * 1000)
    assert list(tmp_path.iterdir()) == []
