"""Execute one notebook in a process of its own: `python -m tradingbot.ops.report.child JOB EVENTS`.

JOB is a file that says what to run, EVENTS a descriptor for lines of JSON about how far it has come. Whoever started it
sets the time limit: a kernel may hang whatever waits for it. Each save of the notebook is whole, so that this process
may be ended at any moment; SIGTERM, the end of who started it, and a limit that passed long ago, save what is there and
end it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

__all__ = ["main"]

MOST_BYTES = 5_000_000  # of text that one cell may print into the notebook
SCHEME = "tradingbot-report:"  # what papermill calls the place that it saves to
AUTOSAVE_S = 2
WATCH_S = 0.5  # between two looks at whether who started this still lives
MOST_PATH = 90  # bytes of the folder of a socket, whose own path may have 107
GRACE_S = 15.0  # that it has beyond the time limit to end this process itself, and this one for its last save


class _Run:
    """Hold what the signal handler needs to save."""

    def __init__(self, job: dict[str, Any], events: int) -> None:
        self.job, self._events = job, events
        self.manager: Any = None
        self.orphaned = False

    def tell(self, **event: Any) -> None:
        """Tell how far it is; whoever listened may be gone."""
        with contextlib.suppress(OSError):
            os.write(self._events, json.dumps(event).encode() + b"\n")

    def stop(self, *_: object) -> None:
        """Save what there is and end, at once: what else runs in this process is not waited for."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        try:
            if self.manager is not None:
                self.manager.save()
        except Exception as error:  # noqa: BLE001  (the save before this one stands)
            self.tell(unsaved=f"{type(error).__name__}: {error}")
        if self.orphaned:
            _clear_up(Path(self.job["scratch"]))
        os._exit(0)

    def write(self, text: str, path: str) -> None:
        """Take a save of papermill's: whole or not at all."""
        from tradingbot.io.state_files import write_atomic

        write_atomic(Path(self.job["partial"]), text.encode("utf-8", "backslashreplace"), durable=False)

    def pretty_path(self, path: str) -> str:
        """Return a path for papermill's log."""
        return path


def main(words: list[str]) -> int:
    """Execute the notebook that a job names; return 0, whatever came of it: the events say that."""
    run = _Run(json.loads(Path(words[0]).read_text()), int(words[1]))
    signal.signal(signal.SIGTERM, run.stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_watch_parent, args=(run,), daemon=True).start()
    try:
        _execute(run)
    except OSError as error:
        run.tell(end="unwritten", says=f"{error.strerror or error}: {error.filename or run.job['partial']}")
    except Exception as error:  # noqa: BLE001  (whatever it is, it belongs into the report)
        text = " ".join(str(error).split())
        run.tell(end="broken", says=f"{type(error).__name__}: {text[:500]}")
    sys.stderr.flush()
    os._exit(0)  # a kernel client's threads are not waited for


def _watch_parent(run: _Run) -> None:
    """End with the process that started us, and some time after the limit that it should have held us to.

    A pipe that closes would not do: whatever else has inherited its other end keeps it open.
    """
    end_s = time.monotonic() + run.job["timeout_s"] + GRACE_S
    while os.getppid() == run.job["runner"] and time.monotonic() < end_s:
        time.sleep(WATCH_S)
    run.orphaned = True
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_S)  # for the last save, which the main thread makes
    _clear_up(Path(run.job["scratch"]))
    os._exit(0)


def _clear_up(scratch: Path) -> None:
    """End all that this run has started, and remove its scratch files, as who started us would have done."""
    from tradingbot.ops.report.process import MARK, end_marked

    end_marked(os.environ[MARK], spared=os.getpid())
    shutil.rmtree(scratch, ignore_errors=True)


def _transport(scratch: str) -> str:
    """Return how a kernel is spoken to: by sockets in a folder, else by ports, which others may take before it does."""
    return "ipc" if len(os.fsencode(scratch)) < MOST_PATH else "tcp"


def _execute(run: _Run) -> None:
    import logging

    from tradingbot.ops.report.notebooks import import_nbformat

    nbformat = import_nbformat()
    import papermill as pm
    from jupyter_client.manager import AsyncKernelManager
    from nbclient.exceptions import DeadKernelError
    from papermill.clientwrap import PapermillNotebookClient
    from papermill.engines import NBClientEngine, papermill_engines
    from papermill.exceptions import PapermillExecutionError
    from papermill.iorw import load_notebook_node, papermill_io
    from papermill.parameterize import parameterize_notebook

    logging.disable(logging.WARNING)

    class Client(PapermillNotebookClient):  # type: ignore[misc]
        """Keep of an endless output what a person could read."""

        def process_message(self, message: Any, cell: Any, cell_index: int) -> Any:
            if message["msg_type"] == "stream":
                text = message["content"]["text"]
                left = MOST_BYTES - printed.get(cell_index, 0)
                printed[cell_index] = printed.get(cell_index, 0) + len(text)
                if left <= 0:
                    return None
                if len(text) > left:
                    note = f"\n... what this cell printed after {MOST_BYTES:,} characters is not kept\n"
                    message["content"]["text"] = text[:left] + note
            return super().process_message(message, cell, cell_index)

    class Engine(NBClientEngine):  # type: ignore[misc]
        """papermill's own engine, whose notebook can be saved at any moment."""

        @classmethod
        def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, **options: Any) -> Any:
            run.manager = nb_man
            kept = ("log_output", "stdout_file", "stderr_file", "km", "on_cell_start")
            passed = {name: options[name] for name in kept if name in options}
            timeouts = {"startup_timeout": options.get("start_timeout", 60), "timeout": None}
            return Client(nb_man, kernel_name=kernel_name, **passed, **timeouts).execute(cleanup_kc=True)

    def on_cell_start(cell: Any, cell_index: int) -> None:
        run.tell(cell=cell_index)

    printed: dict[int, int] = {}
    job = run.job
    notebook = load_notebook_node(nbformat.reads(json.dumps(job["notebook"]), 4))
    if job["parameters"]:
        notebook = parameterize_notebook(notebook, job["parameters"], kernel_name="python3", language="python")
    papermill_io.register(SCHEME, run)
    papermill_engines.register("tradingbot", Engine)
    run.tell(of=len(notebook.cells))
    try:
        pm.execute_notebook(
            notebook, f"{SCHEME}report.ipynb", engine_name="tradingbot", kernel_name="python3", language="python",
            progress_bar=False, start_timeout=60, autosave_cell_every=AUTOSAVE_S, on_cell_start=on_cell_start,
            km=AsyncKernelManager(
                kernel_name="python3", transport_encryption="auto", connection_file=f"{job['scratch']}/kernel.json",
                transport=_transport(job["scratch"]),
            ),
        )  # fmt: skip
    except PapermillExecutionError as error:
        run.tell(end="error", name=error.ename, says=str(error.evalue)[:2_000])
    except DeadKernelError:
        run.manager.save()
        run.tell(end="dead")
    else:
        run.tell(end="done")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
