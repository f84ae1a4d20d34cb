"""Small git repositories that hold a package to roll back, with no need of a network."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from tests.conftest import ROOT

LOCK = "# this revision needs nothing\n"
WITH_REV = re.findall(r"^tradingbot (.+)$", (ROOT / "docs" / "ROLLBACK.md").read_text(), re.MULTILINE)
"""The commands of docs/ROLLBACK.md that take a revision, in their order."""


def git(repo: Path, *words: str, **env: str) -> str:
    """Run git as a developer would, whatever the machine's own settings are."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    clean |= {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1", **env}
    who = ("-c", "user.name=dev", "-c", "user.email=dev@example.org", "-c", "init.defaultBranch=main")
    done = subprocess.run(["git", "-C", str(repo), *who, *words], capture_output=True, text=True, check=True, env=clean)
    return done.stdout.strip()


def write(repo: Path, files: dict[str, str | None]) -> None:
    for name, text in files.items():
        if text is None:
            (repo / name).unlink()
        else:
            (repo / name).parent.mkdir(parents=True, exist_ok=True)
            (repo / name).write_text(text)


def commit(repo: Path, files: dict[str, str | None], message: str, when: str = "2026-01-01T00:00:00Z") -> str:
    """Change files and commit them; return the commit."""
    write(repo, files)
    git(repo, "add", "--all")
    git(repo, "commit", "--quiet", "--allow-empty", "-m", message, GIT_COMMITTER_DATE=when, GIT_AUTHOR_DATE=when)
    return git(repo, "rev-parse", "HEAD")


def small(repo: Path) -> Path:
    """Make a repository of two revisions: v1, and one that has changed a module and added another, with its tests."""
    repo.mkdir()
    git(repo, "init", "--quiet")
    first: dict[str, str | None] = {
        "tradingbot/__init__.py": "__version__ = '1'\n", "tradingbot/__main__.py": "print('bot')\n",
        "tradingbot/rule.py": "THRESHOLD = 1\n", "tests/test_rule.py": "", "requirements-dev.txt": LOCK,
    }  # fmt: skip
    commit(repo, first, "The first one", "2026-01-01T00:00:00Z")
    git(repo, "tag", "v1")
    second: dict[str, str | None] = {
        "tradingbot/rule.py": "THRESHOLD = 2\n", "tradingbot/newer.py": "NEWER = True\n",
        "tests/helper.py": "from tradingbot import newer\n", "tests/test_newer.py": "",
        "tests/test_by_way.py": "import tests.helper\n", "tests/test_direct.py": "from tradingbot.newer import NEWER\n",
    }  # fmt: skip
    commit(repo, second, "A newer one", "2026-02-01T00:00:00Z")
    return repo


def real(repo: Path) -> Path:
    """Make a repository of this package: v1 as it is, then one with a module more; its lock names one local wheel.

    The wheel has the packages of this test's environment found, so that an environment is built as any, without a
    network.
    """
    repo.mkdir()
    git(repo, "init", "--quiet")
    shutil.copytree(ROOT / "tradingbot", repo / "tradingbot", ignore=shutil.ignore_patterns("__pycache__"))
    wheel = repo.parent / "neighbours-1-py3-none-any.whl"
    info = "neighbours-1.dist-info"
    sites = [path for path in sys.path if "site-packages" in path]
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("zz_neighbours.pth", "\n".join(sites) + "\n")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: neighbours\nVersion: 1\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", f"zz_neighbours.pth,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    test = "import os\nimport tradingbot\n\ndef test_where_it_is():\n    assert '.rollbacks' in tradingbot.__file__\n"
    test += "    assert 'TRADINGBOT_API_KEY' not in os.environ and 'EMBEDDED_SPEED' not in os.environ\n"
    lock = f"neighbours @ {wheel.as_uri()} --hash=sha256:{digest}\n"
    ignored = ".venv/\n__pycache__/\n"
    rule, its_test = "tradingbot/market/anchor_manager.py", "tests/test_anchor_manager.py"
    text, asks = (ROOT / rule).read_text(), "from tradingbot.market import anchor_manager\n\ndef test_it():\n    "
    then: dict[str, str | None] = {"requirements-dev.txt": lock, "tests/test_here.py": test, ".gitignore": ignored}
    then[its_test] = f"{asks}assert not hasattr(anchor_manager, 'NEWER')\n"
    commit(repo, then, "As it is")
    git(repo, "tag", "v1")
    newer: dict[str, str | None] = {"tradingbot/market/newer.py": "NEWER = 1\n", rule: f"{text}\nNEWER = True\n"}
    newer[its_test] = f"{asks}assert anchor_manager.NEWER\n"
    commit(repo, newer, "Newer")
    return repo
