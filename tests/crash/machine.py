"""What the crash test asks of the machine: traced processes, mounts, limits."""

from __future__ import annotations

import fcntl
import functools
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.conftest import ROOT

CALLS = (
    "write", "pwrite64", "fsync", "fdatasync", "rename", "openat", "unlink", "ftruncate", "link", "linkat", "mkdir",
    "fallocate", "fchmod", "chmod",
)  # fmt: skip
SHUTDOWN, NO_LOG_FLUSH = 0x8004587D, 2  # FS_IOC_SHUTDOWN: what is not on the disk by now never will be
SIZES = {"ext4": 64 << 20, "xfs": 320 << 20}  # mkfs.xfs makes none below 300 MB
PYTHON = os.path.realpath(sys.executable)  # a wrapper would be traced in its place

Point = tuple[str, int]
"""A system call's name, and which of them in the life of a process, from 1."""


def environment(**more: str) -> dict[str, str]:
    """Return the environment of a driver: the same byte code and the same order of sets at every run."""
    path = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
    return {"PATH": os.environ["PATH"], "PYTHONPATH": path, "PYTHONHASHSEED": "0", "PYTHONWARNINGS": "error", **more}


def driver(*words: object) -> list[str]:
    """Return the command of a driver."""
    return [PYTHON, "-m", "tests.crash.drivers", *map(str, words)]


def run(
    command: Sequence[str], timeout_s: float = 300, defect: str = "", before: str = ""
) -> subprocess.CompletedProcess[bytes]:
    """Run a command to its end, away from the terminal's signals; one that does not end in time ends with 124."""
    words = ["sh", "-c", f'{before}; exec "$@"', "sh", *command] if before else list(command)
    with subprocess.Popen(
        words, env=environment(CRASH_DEFECT=defect), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:  # fmt: skip
        try:
            output, errors = process.communicate(timeout=timeout_s)
            code = process.returncode
        except subprocess.TimeoutExpired:
            output, errors, code = b"", b"no end within %d s" % timeout_s, 124
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
    return subprocess.CompletedProcess(words, code, output, errors)


def traced(options: Sequence[str], command: Sequence[str]) -> list[str]:
    """Return a command under strace."""
    return ["strace", "-qq", "-s", "1", *options, *command]


def points(command: Sequence[str], folder: Path, prepare: Callable[[Path], None]) -> list[Point]:
    """Return each call that a driver makes on a file or folder below `folder`, in order, by tracing it once."""
    with tempfile.NamedTemporaryFile(prefix="strace-") as log:
        run(command).check_returncode()  # so that all byte code is there
        shutil.rmtree(folder)
        folder.mkdir()
        prepare(folder)
        run(traced(["-y", "-o", log.name, "-e", f"trace={_set(CALLS)}"], command)).check_returncode()
        counts = dict.fromkeys(CALLS, 0)
        found: list[Point] = []
        for line in Path(log.name).read_text(errors="replace").splitlines():
            call = line.partition("(")[0]
            if call in counts:
                counts[call] += 1
                if str(folder) in line:
                    found.append((call, counts[call]))
    return found


def _set(calls: Sequence[str]) -> str:
    return ",".join(f"?{call}" for call in calls)  # not every machine has every one


def killed_at(point: Point, command: Sequence[str], defect: str = "") -> subprocess.CompletedProcess[bytes]:
    """Run a driver and kill it as it enters a call."""
    return run(traced(["-o", os.devnull, *_inject(point, "signal=KILL")], command), defect=defect)


def failing_at(
    point: Point, error: str, command: Sequence[str], more: str = "", defect: str = ""
) -> subprocess.CompletedProcess[bytes]:
    """Run a driver and let a call of it fail; `more` is "+" for all calls from there on."""
    return run(traced(["-o", os.devnull, *_inject(point, f"error={error}", more)], command), defect=defect)


def _inject(point: Point, what: str, more: str = "") -> list[str]:
    call, number = point
    return ["-e", f"trace={call}", "-e", f"inject={call}:{what}:when={number}{more}"]


def spread(items: Sequence[Point], count: int) -> list[Point]:
    """Return `count` of the items, evenly spread, all where there are no more."""
    if len(items) <= count:
        return list(items)
    return [items[place * len(items) // count] for place in range(count)]


@functools.cache
def no_strace() -> str:
    """Say why processes cannot be traced here, "" if they can."""
    if shutil.which("strace") is None:
        return "strace is not installed: apt-get install strace"
    tried = subprocess.run(["strace", "-o", os.devnull, "true"], capture_output=True, check=False)
    return "" if tried.returncode == 0 else "strace may not trace here"


@functools.cache
def no_mounts() -> str:
    """Say why file systems cannot be mounted here, "" if they can."""
    with tempfile.TemporaryDirectory() as folder:
        mounted = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], capture_output=True, check=False)
        if mounted.returncode:
            return "file systems may not be mounted here: root is needed"
        subprocess.run(["umount", folder], check=True)
    return ""


@functools.cache
def no_loops() -> str:
    """Say why a file cannot be mounted as a disk here, "" if it can."""
    if no_mounts():
        return no_mounts()
    if shutil.which("mkfs.ext4") is None:
        return "mkfs.ext4 is not installed: apt-get install e2fsprogs"
    return "" if "ext4" in disk_kinds() else "loop devices cannot be mounted here"


@contextmanager
def tmpfs(folder: Path, options: str) -> Iterator[Path]:
    """Give a small file system in memory, for a disk that is full."""
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True, capture_output=True)
    try:
        yield folder
    finally:
        _unmount(folder)


class Disk:
    """Be a disk in a file, mounted at `place`, whose power can be cut."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.place = folder / "disk"
        self._image, self._kind = folder / "image", kind

    def __enter__(self) -> Disk:
        with self._image.open("wb") as file:
            file.truncate(SIZES[self._kind])
        quiet = ["-qF"] if self._kind == "ext4" else ["-qf"]
        subprocess.run([f"mkfs.{self._kind}", *quiet, str(self._image)], check=True, capture_output=True)
        self.place.mkdir()
        self._mount()
        return self

    def __exit__(self, *_: object) -> None:
        _unmount(self.place)
        self._image.unlink()

    def _mount(self) -> None:
        options = "loop,nodiscard" if self._kind == "ext4" else "loop,nouuid"
        command = ["mount", "-t", self._kind, "-o", options, str(self._image), str(self.place)]
        subprocess.run(command, check=True, capture_output=True)

    def cut(self) -> None:
        """Cut the power: nothing more reaches the disk."""
        descriptor = os.open(self.place, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(descriptor)

    def restore(self) -> None:
        """Mount the disk as it is after the power is back; whoever used it has gone."""
        _unmount(self.place)
        self._mount()


def _unmount(place: Path) -> None:
    done = subprocess.run(["umount", str(place)], capture_output=True, check=False)
    if done.returncode:
        subprocess.run(["umount", "-l", str(place)], capture_output=True, check=False)


@functools.cache
def disk_kinds() -> tuple[str, ...]:
    """Return the kinds of file systems that can be made and mounted here."""
    return tuple(kind for kind in SIZES if shutil.which(f"mkfs.{kind}") and _can_mount(kind))


def _can_mount(kind: str) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        try:
            with Disk(Path(folder), kind):
                return True
        except (OSError, subprocess.CalledProcessError):
            return False


def lines_of(output: bytes) -> list[str]:
    """Return the whole lines of what a driver acknowledged."""
    return re.findall(r"(.*)\n", output.decode())
