"""A JupyterLab server and a headless Chromium, as an operator has them before the first click."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from selenium.common.exceptions import ElementClickInterceptedException, StaleElementReferenceException
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.support.select import Select

from tests.conftest import ROOT

CHROMIUM, DRIVER = "/usr/bin/chromium", "/usr/bin/chromedriver"
PATIENCE_S = 120.0


def chromium_is_here() -> bool:
    return Path(CHROMIUM).exists() and Path(DRIVER).exists()


@contextlib.contextmanager
def jupyter_lab(folder: Path, home: Path) -> Iterator[str]:
    """Serve copies of the notebooks from a folder of their own, on loopback; give the address."""
    folder.mkdir()
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        shutil.copy(path, folder)
    port = free_port()
    own = {name: str(folder.parent / name.lower()) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR")}
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", f"--port={port}",
        "--ServerApp.port_retries=0", "--IdentityProvider.token=", "--ServerApp.password=",
        "--ServerApp.disable_check_xsrf=True", "--expose-app-in-browser", "--allow-root", f"--notebook-dir={folder}",
        "--LabApp.news_url=None", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]  # fmt: skip
    quiet = folder.parent / "jupyter_config_dir" / "labconfig"
    quiet.mkdir(parents=True)
    (quiet / "page_config.json").write_text(
        '{"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": true}}'
    )
    environ = {**os.environ, **own, "TRADINGBOT_HOME": str(home)}
    log = folder.parent / "lab.log"
    with log.open("w") as file, subprocess.Popen(command, stdout=file, stderr=file, env=environ) as server:
        try:
            wait_until(lambda: listens(port), "the server does not listen: " + str(log))
            yield f"http://127.0.0.1:{port}/lab"
        finally:
            server.terminate()
            server.wait(120)


def free_port() -> int:
    """Return a port that nobody has, and that nobody is given who asks for any: it stays free until it is used."""
    while True:
        port = random.SystemRandom().randrange(20_000, 30_000)
        with socket.socket() as free, contextlib.suppress(OSError):
            free.bind(("127.0.0.1", port))
            return port


def listens(port: int) -> bool:
    with socket.socket() as other:
        return other.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def chromium(profile: Path) -> Iterator[WebDriver]:
    """Give a browser of 1280 px that asks nobody but the loopback."""
    options = ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
        "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--window-size=1280,1400",
        f"--user-data-dir={profile}",
    ):  # fmt: skip
        options.add_argument(flag)
    driver = Chrome(options=options, service=Service(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()


class Lab:
    """Drive one JupyterLab in one browser."""

    def __init__(self, driver: WebDriver, address: str) -> None:
        self.driver, self._address = driver, address

    def open(self, name: str) -> None:
        """Open a notebook in a fresh lab, and wait until its kernel is idle."""
        self.driver.get(f"{self._address}/tree/{name}?reset")
        idle = (
            "const panel = window.jupyterapp?.shell?.currentWidget;"
            "return panel?.context?.sessionContext?.session?.kernel?.status === 'idle'"
        )
        wait_until(lambda: self.driver.execute_script(idle), f"the kernel of {name} is not idle")
        self.driver.execute_script("window.jupyterapp.shell.collapseLeft()")

    def run_all(self) -> None:
        """Begin to run all cells."""
        self.driver.execute_script("window.jupyterapp.commands.execute('notebook:run-all-cells')")

    def set_parameters(self, **values: str) -> None:
        """Write other literals into the parameters cell, as a user would before running it."""
        for name, literal in values.items():
            self.driver.execute_script(
                "const cells = window.jupyterapp.shell.currentWidget.content.model.cells;"
                "for (let i = 0; i < cells.length; i++) { const shared = cells.get(i).sharedModel;"
                " if ((cells.get(i).getMetadata('tags') || []).includes('parameters'))"
                "  shared.setSource(shared.getSource().replace("
                "   new RegExp('^(' + arguments[0] + '\\\\b[^=]*= )[^#]*', 'm'), '$1' + arguments[1] + '  ')); }",
                name, literal,
            )  # fmt: skip

    def text(self) -> str:
        """Return all that stands in outputs."""
        return str(
            self.driver.execute_script(
                "return [...document.querySelectorAll('.jp-OutputArea-output')].map(e => e.innerText).join('\\n')"
            )
        )

    def errors(self) -> list[str]:
        """Return the errors that cells have ended with, from the notebook itself."""
        script = (
            "const found = []; const cells = window.jupyterapp.shell.currentWidget.content.model.cells;"
            "for (let i = 0; i < cells.length; i++) for (const o of (cells.get(i).toJSON().outputs || []))"
            " if (o.output_type === 'error') found.push(o.ename + ': ' + o.evalue); return found"
        )
        return list(self.driver.execute_script(script))

    def has_ended(self) -> bool:
        """Return whether every code cell has been run."""
        script = (
            "const cells = window.jupyterapp.shell.currentWidget.content.model.cells; let all = true;"
            "for (let i = 0; i < cells.length; i++) { const c = cells.get(i);"
            " if (c.type === 'code' && c.executionCount === null) all = false; }"
            "const session = window.jupyterapp.shell.currentWidget.context.sessionContext.session;"
            "return all && session.kernel.status === 'idle'"
        )
        return bool(self.driver.execute_script(script))

    def button(self, text: str) -> Any:
        """Return the button that shows a text, None where none can be clicked."""
        script = (
            "return [...document.querySelectorAll('button.widget-button')]"
            ".find(b => b.innerText.trim() === arguments[0] && !b.disabled && b.offsetParent !== null) || null"
        )
        return self.driver.execute_script(script, text)

    def click(self, text: str, within: str = "") -> None:
        """Click a button, by its text, or by the class of a widget."""
        if within:
            found = lambda: self.driver.execute_script("return document.querySelector(arguments[0])", within)  # noqa: E731
        else:
            found = lambda: self.button(text)  # noqa: E731

        def clicked() -> bool:
            button = found()
            if button is None:
                return False
            with contextlib.suppress(ElementClickInterceptedException, StaleElementReferenceException):  # it has moved
                self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
                button.click()  # a real one: it takes the focus from the field that was typed into
                return True
            return False

        wait_until(clicked, f"there is no button {text}{within}")

    def symbols(self) -> list[str]:
        """Return the symbols that can be chosen."""
        script = "return [...document.querySelectorAll('.widget-dropdown option')].map(option => option.innerText)"
        return list(self.driver.execute_script(script))

    def choose(self, symbol: str) -> None:
        """Choose a symbol to chart."""
        Select(self.driver.find_element("css selector", ".widget-dropdown select")).select_by_visible_text(symbol)

    def type(self, text: str, behind: str = "") -> None:
        """Type a reason, or the rest of one, behind what stands in its field."""
        script = (
            "return [...document.querySelectorAll('.widget-text input')].find(field => field.value === arguments[0])"
            " || null"
        )
        field = wait_until(lambda: self.driver.execute_script(script, behind), f"there is no field with {behind!r}")
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", field)
        field.send_keys(text)


def wait_until(holds: Callable[[], Any], complaint: str, seconds: float = PATIENCE_S) -> Any:
    """Wait until something holds, and return it."""
    end = time.monotonic() + seconds
    while not (value := holds()):
        assert time.monotonic() < end, complaint
        time.sleep(0.1)
    return value
