"""Archives: what is packed comes out again, what is damaged or hostile is refused, and memory is bounded."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import random
import subprocess
import tarfile
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard

from tradingbot.ops.cleanup import archive_write, archives
from tradingbot.ops.cleanup.archive_write import Source, pack, pack_verified
from tradingbot.ops.cleanup.archives import ArchiveError, Contents, Member, contents_of, unpack

NAMES = (
    "a.zst",
    "b.json",
    "c\nd.html",
    "\x1b[31mred.html",
    os.fsdecode(b"\xff\xfe.html"),
    "ü" * 60,
    "x" * 240,
    "empty",
)


def made(folder: Path, names: tuple[str, ...] = NAMES, size: int = 3_000_000) -> tuple[list[Source], dict[str, bytes]]:
    """Make files of all kinds; return them as sources, and their bytes."""
    folder.mkdir(exist_ok=True)
    rng = random.Random(7)
    texts = {}
    for place, name in enumerate(names):
        text = b"" if name == "empty" else rng.randbytes(size) if place % 2 else b"abc %d\n" % place * (size // 9)
        (folder / name).write_bytes(text)
        texts[name] = text
    return [Source(folder / name, f"logs/{name}", lambda _: True) for name in names], texts


def packed(tmp_path: Path, **options: Any) -> tuple[Path, Contents, dict[str, bytes]]:
    sources, texts = made(tmp_path / "files", **options)
    path = tmp_path / "x.tar.zst"
    contents = pack_verified(path, sources, {"why": "drill"})
    assert pack(tmp_path / "y.tar.zst", sources, {"why": "drill"}) == contents
    assert (tmp_path / "y.tar.zst").read_bytes() == path.read_bytes()
    return path, contents, texts


def unpacked(path: Path, contents: Contents) -> dict[str, bytes]:
    found: dict[str, io.BytesIO] = {}

    def writing(member: Member) -> contextlib.AbstractContextManager[Any]:
        found[member.name.removeprefix("logs/")] = file = io.BytesIO()
        return contextlib.nullcontext(file)

    unpack(path, contents, writing)
    return {name: file.getvalue() for name, file in found.items()}


def test_what_is_packed_comes_out_again_whatever_its_name(tmp_path: Path) -> None:
    """Newlines, escapes, bytes that are no UTF-8, long names, nothing at all: to the byte, with their checksums."""
    path, contents, texts = packed(tmp_path)
    assert contents_of(path) == contents
    assert unpacked(path, contents) == texts
    sums = {member.name.removeprefix("logs/"): member.sha256 for member in contents.members}
    assert sums == {name: hashlib.sha256(text).hexdigest() for name, text in texts.items()}
    assert path.stat().st_mode & 0o777 == 0o600


def test_tar_and_zstd_read_it(tmp_path: Path) -> None:
    """Without this program: `zstd -d | tar x` gives the files, and the manifest last."""
    path, contents, texts = packed(tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    with path.open("rb") as file:
        text = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True).read()
    subprocess.run(["tar", "-x", "-C", str(out)], input=text, check=True, capture_output=True)
    assert {name: (out / "logs" / name).read_bytes() for name in texts} == texts
    assert (out / "manifest.json").read_text().isascii()
    assert len(contents.members) == len(texts)


def test_a_byte_that_is_flipped_anywhere_is_found(tmp_path: Path) -> None:
    """In headers, files, manifest and padding; what is not found changes nothing that comes out (a frame's window)."""
    path, contents, texts = packed(tmp_path, names=("a.zst", "b.zst", "c.json"), size=20_000)
    text = path.read_bytes()
    rng, harmless = random.Random(3), []
    for place in [*range(30), *(rng.randrange(len(text)) for _ in range(150)), len(text) - 1]:
        path.write_bytes(text[:place] + bytes([text[place] ^ 1 << rng.randrange(8)]) + text[place + 1 :])
        try:
            assert contents_of(path) == contents
            assert unpacked(path, contents) == texts
            harmless.append(place)
        except ArchiveError:
            continue
    assert len(harmless) < 5


def test_one_that_is_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    """Also where a frame ends: the manifest is the last member."""
    path, _, _ = packed(tmp_path, names=("a.zst", "b.json"), size=5_000)
    text = path.read_bytes()
    for length in (0, 1, 3, 17, *range(100, len(text), max(len(text) // 60, 1)), len(text) - 1):
        path.write_bytes(text[:length])
        with pytest.raises(ArchiveError, match="is no whole archive"):
            contents_of(path)


def test_what_is_flipped_on_its_way_into_the_archive_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the file and the compressor: the checksums are of what was read."""
    write = archive_write._Packed.write

    def flipping(self: Any, data: bytes, level: int) -> None:
        write(self, data.replace(b"abc 0\nabc 0\n", b"abc 0\nabd 0\n", 1), level)

    monkeypatch.setattr(archive_write._Packed, "write", flipping)
    sources, _ = made(tmp_path / "files", ("a.zst",))
    with pytest.raises(ArchiveError, match=r"'logs/a\.zst' is not what its manifest says"):
        pack_verified(tmp_path / "x.tar.zst", sources, {})
    path = tmp_path / "y.tar.zst"
    pack(path, sources, {})
    with pytest.raises(ArchiveError, match=r"'logs/a\.zst' is not what its manifest says"):
        contents_of(path)


def test_a_file_that_changes_while_it_is_read_stops_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Grown, or cut: an error that names it; one that is gone, refused, a link or a pipe is left out or an error."""
    sources, _ = made(tmp_path / "files", ("a", "b"))
    copy = archive_write._copy

    def growing(plain: Any, source: Source, *rest: Any) -> None:
        with source.path.open("ab") as file:
            file.write(b"more")
        copy(plain, source, *rest)

    monkeypatch.setattr(archive_write, "_copy", growing)
    with pytest.raises(OSError, match="it changed while it was read") as caught:
        pack_verified(tmp_path / "x", sources, {})
    assert caught.value.filename == str(sources[0].path)
    monkeypatch.undo()
    gone = Source(tmp_path / "none", "logs/none", lambda _: True)
    refused = Source(sources[0].path, "logs/refused", lambda _: False)
    assert [member.name for member in pack(tmp_path / "y", [gone, refused, sources[1]], {}).members] == ["logs/b"]
    (tmp_path / "link").symlink_to(sources[0].path)
    with pytest.raises(OSError, match="symbolic links"):
        pack(tmp_path / "z", [Source(tmp_path / "link", "logs/link", lambda _: True)], {})


def hostile(path: Path, *infos: tuple[tarfile.TarInfo, bytes]) -> Path:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, text in infos:
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text))
    path.write_bytes(zstandard.ZstdCompressor().compress(out.getvalue()) + archives.END)
    return path


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_folders_and_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    """An archive of this program holds plain files alone."""
    with pytest.raises(ArchiveError, match="is no plain file"):
        contents_of(hostile(tmp_path / "x", (entry("logs/a", kind, "/etc/passwd"), b"")))


def manifests() -> Iterator[tuple[str, bytes]]:
    yield "no JSON", b"{"
    yield "a list", b"[]"
    yield "no members", b'{"v":1}'
    yield "another schema", b'{"v":2,"members":[]}'
    yield "a name twice", b'{"v":1,"members":[%b]}' % b",".join([b'{"name":"a","size":0,"mtime_ns":0,"sha256":""}'] * 2)
    yield "deep", b"[" * 100_000
    yield "long numbers", b'{"v":1,"members":[{"name":"a","size":%b,"mtime_ns":0,"sha256":""}]}' % (b"7" * 5000)
    yield "names more", b'{"v":1,"members":[{"name":"a","size":0,"mtime_ns":0,"sha256":""}]}'


@pytest.mark.parametrize(("what", "text"), list(manifests()), ids=lambda value: value if isinstance(value, str) else "")
def test_a_hostile_manifest_is_one_line(tmp_path: Path, what: str, text: bytes) -> None:
    """Whatever it holds."""
    with pytest.raises(ArchiveError, match="is no whole archive") as caught:
        contents_of(hostile(tmp_path / "x", (entry("manifest.json"), text)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [b"", b"no archive at all", b"\0" * 5000, zstandard.ZstdCompressor().compress(b"\0" * 20_000),
     zstandard.ZstdCompressor().compress(os.urandom(20_000))],
    ids=["empty", "text", "NULs", "an empty tar", "noise"],
)  # fmt: skip
def test_what_is_no_archive_is_one_line(tmp_path: Path, text: bytes) -> None:
    """Never a traceback."""
    for end in (b"", archives.END):
        (tmp_path / "x").write_bytes(text + end)
        with pytest.raises(ArchiveError, match="is no whole archive"):
            contents_of(tmp_path / "x")


def measured(job: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        job()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_follow_the_sizes(tmp_path: Path) -> None:
    """Neither packing, reading back nor a header that claims a gigabyte takes more than a few blocks."""
    sources, _ = made(tmp_path / "files", ("a.zst",), 1000)
    with sources[0].path.open("wb") as file:
        file.truncate(120_000_000)
    path = tmp_path / "x"
    assert measured(lambda: pack_verified(path, sources, {})) < 30_000_000
    assert measured(lambda: contents_of(path)) < 30_000_000
    pax = tarfile.TarInfo("././@PaxHeader")
    pax.type, pax.size = tarfile.XHDTYPE, 1 << 30
    packer = zstandard.ZstdCompressor().compressobj()
    parts = [packer.compress(pax.tobuf()), *(packer.compress(b"\0" * (1 << 20)) for _ in range(100)), packer.flush()]
    path.write_bytes(b"".join(parts) + archives.END)

    def refused() -> None:
        with pytest.raises(ArchiveError, match="header of it is larger"):
            contents_of(path)

    assert measured(refused) < 30_000_000
