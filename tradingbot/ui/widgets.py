"""The control room of a notebook: what is seen, as widgets, and buttons that call what they are given."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from tradingbot.errors import TradingBotError
from tradingbot.ui.live_html import message

__all__ = ["FlagState", "Panel", "Screen", "Steering"]

WIDTH = "100%"
HELD_BACK_S = 0.4  # that a change may come behind a click that was made after it


@dataclass(frozen=True, slots=True)
class FlagState:
    """Hold a flag as it stands: what the running bot goes by (None: not known), and who overrode it, "" for nobody."""

    name: str
    on: bool | None
    off_means: str
    takes_effect: str
    override: str = ""


@dataclass(frozen=True, slots=True)
class Screen:
    """Hold all that is shown at a time: HTML by part, the symbols to choose from, the flags, whether it is killed."""

    banner: str
    table: str = ""
    decisions: str = ""
    troubles: str = ""
    symbols: tuple[str, ...] = ()
    flags: tuple[FlagState, ...] = ()
    is_killed: bool = False


class Steering(Protocol):
    """Do what a click asks for; each returns what came of it, in words, and raises TradingBotError or OSError."""

    def halt(self, why: str) -> str: ...  # noqa: D102
    def give_reason(self, why: str) -> str: ...  # noqa: D102  (of a halt that came before it)
    def arm(self, why: str) -> str: ...  # noqa: D102
    def plan(self, flag: str, on: bool | None) -> str: ...  # noqa: D102
    def switch(self, flag: str, on: bool | None, why: str) -> str: ...  # noqa: D102
    def choose(self, symbol: str) -> None: ...  # noqa: D102
    def stop(self) -> None: ...  # noqa: D102


class Panel:
    """Show screens in place, each part only where it has changed, and pass clicks on.

    `root` is the widget to display. HALT acts at once; what switches anything else shows its plan, wants a reason and
    is confirmed. A click that fails says so; what is no error of the user's stands in `defects`, for whoever runs the
    panel to raise.
    """

    def __init__(self, steering: Steering, flags: Sequence[str]) -> None:
        import ipywidgets as w

        self._steering = steering
        self._pending: Callable[[str], str] | None = None
        self._used: Any = None  # the field of the reason before, to which one that a click overtook may still come
        self._is_told = False
        self.defects: list[Exception] = []
        self._banner, self._table, self._decisions, self._troubles = (w.HTML() for _ in range(4))
        self._said, self._asked = w.HTML(), w.HTML()
        self._chart = w.Image(format="png", layout=w.Layout(max_width=WIDTH, display="none"))
        self._halt = w.Button(
            description="HALT", button_style="danger", tooltip="kill switch: no new position, at once"
        )
        self._arm = w.Button(description="ARM", tooltip="switch the kill switch off", disabled=True)
        self._stop = w.Button(description="stop watching", tooltip="end this cell; the bot goes on")
        self._why = _reason()
        self._buttons = w.HBox([self._halt, self._arm, self._stop, self._why], layout=w.Layout(flex_flow="row wrap"))
        self._symbol, self._charted = w.Dropdown(options=[], description="chart of"), w.HTML()
        self._do = w.Button(description="do it", button_style="warning")
        self._cancel = w.Button(description="cancel")
        self._confirm = w.VBox([self._asked, w.HBox([self._do, self._cancel])], layout=w.Layout(display="none"))
        self._rows = {name: _FlagRow(name) for name in flags}
        for row in self._rows.values():
            row.toggle.on_click(self._guarded(partial(self._toggle, row)))
            row.clear.on_click(self._guarded(partial(self._clear, row)))
        self._halt.on_click(self._guarded(lambda _: self._halt_now()))
        self._arm.on_click(self._guarded(lambda _: self._ask_arm()))
        self._stop.on_click(self._guarded(lambda _: steering.stop()))
        self._do.on_click(lambda _: _soon(partial(self._guarded(lambda _: self._confirmed()), None)))
        self._cancel.on_click(self._guarded(lambda _: self._dismiss("nothing was changed")))
        _acknowledge(self._symbol)
        self._symbol.observe(self._guarded(self._chosen), names="value")
        self.root = w.VBox(
            [
                self._banner,
                self._buttons,
                self._said,
                self._confirm,
                self._table,
                w.HBox([self._symbol, self._charted]),
                self._chart,
                self._decisions,
                w.HTML("<b>flags</b>"),
                *(row.box for row in self._rows.values()),
                self._troubles,
            ],
            layout=w.Layout(width=WIDTH),
        )

    def show(self, screen: Screen) -> None:
        """Show a screen; what is as before costs nothing."""
        for widget, text in (
            (self._banner, screen.banner), (self._table, screen.table), (self._decisions, screen.decisions),
            (self._troubles, screen.troubles),
        ):  # fmt: skip
            if widget.value != text:
                widget.value = text
        if self._symbol.options != screen.symbols:
            chosen = self._symbol.value
            self._is_told = True  # a dropdown chooses its first option itself: that is nobody's choice
            self._symbol.options = screen.symbols
            self._symbol.value = chosen if chosen in screen.symbols else None
            self._is_told = False
        self._arm.disabled = not screen.is_killed
        for flag in screen.flags:
            if flag.name in self._rows:
                self._rows[flag.name].show(flag)

    def show_chart(self, png: bytes, symbol: str) -> None:
        """Show the chart of a symbol, or none where it is empty."""
        if png != self._chart.value:
            self._chart.value = png
            self._charted.value = message(f"the chart shows {symbol}" if png else "")
            self._chart.layout.display = None if png else "none"

    def choose(self, symbol: str) -> None:
        """Choose a symbol as a click would; one that is not there is left."""
        if symbol in self._symbol.options and symbol != self._symbol.value:
            self._symbol.value = symbol

    def say(self, text: str, is_bad: bool = False) -> None:
        """Show what came of something."""
        self._say(text, is_bad)

    def close(self) -> None:
        """Take every widget away, so that the kernel keeps none of them."""
        for widget in (*_all(self.root), *([self._used] if self._used is not None else ())):
            widget.close()

    def _say(self, text: str, is_bad: bool = False) -> None:
        self._said.value = message(text, is_bad)

    def _guarded(self, act: Callable[[Any], None]) -> Callable[[Any], None]:
        def acting(event: Any) -> None:
            try:
                act(event)
            except (TradingBotError, OSError) as error:
                self._say(f"that did not work: {error}", is_bad=True)
            except Exception as error:  # noqa: BLE001  (ipywidgets would swallow it)
                self._say(f"a defect: {type(error).__name__}: {error}", is_bad=True)
                self.defects.append(error)

        return acting

    def _chosen(self, change: Mapping[str, Any]) -> None:
        if change["new"] is not None and not self._is_told:
            self._steering.choose(change["new"])

    def _toggle(self, row: _FlagRow, _: Any) -> None:
        self._ask_flag(row, not row.on)

    def _clear(self, row: _FlagRow, _: Any) -> None:
        self._ask_flag(row, None)

    def _ask_flag(self, row: _FlagRow, on: bool | None) -> None:
        name = row.name
        self._ask(self._steering.plan(name, on), lambda why: self._steering.switch(name, on, why))

    def _halt_now(self) -> None:
        """Halt at once: a reason that is still on its way follows; one that was typed for a change stays with it."""
        if self._pending is not None:
            kept = "the reason in the field stays with the change that is to be confirmed"
            self._say(f"{self._steering.halt('')}\n{kept}")
            return
        self._say(self._steering.halt(self._why.value.strip()))
        self._why.observe(self._guarded(self._reason_came), names="value")
        self._renew_reason()

    def _reason_came(self, change: Mapping[str, Any]) -> None:
        if why := change["new"].strip():
            self._say(self._steering.give_reason(why))

    def _renew_reason(self) -> None:
        """Put an empty field in the place of the one that was used, which goes when the next one is."""
        if self._used is not None:
            self._used.close()
        self._used, self._why = self._why, _reason()
        self._buttons.children = (*self._buttons.children[:-1], self._why)

    def _ask_arm(self) -> None:
        self._ask("ARM: the kill switch goes off, and the bot may open positions again", self._steering.arm)

    def _ask(self, plan: str, act: Callable[[str], str]) -> None:
        self._pending = act
        self._asked.value = message(plan)
        self._say("")
        self._confirm.layout.display = None

    def _confirmed(self) -> None:
        if self._pending is None:
            return
        why = self._why.value.strip()
        if not why:
            self._say("nothing was changed yet: say why in the field above, for the audit", is_bad=True)
            return
        act, self._pending = self._pending, None
        self._confirm.layout.display = "none"
        self._say(act(why))
        self._renew_reason()

    def _dismiss(self, text: str) -> None:
        self._pending = None
        self._confirm.layout.display = "none"
        self._say(text)


class _FlagRow:
    """Hold the widgets of one flag."""

    def __init__(self, name: str) -> None:
        import ipywidgets as w

        self.name, self.on = name, True
        self._text = w.HTML()
        self.toggle = w.Button(description="switch off", layout=w.Layout(width="110px"), disabled=True)
        self.clear = w.Button(description="clear override", layout=w.Layout(width="120px"), disabled=True)
        self.box = w.HBox([self.toggle, self.clear, self._text], layout=w.Layout(align_items="center"))
        for button, word in ((self.toggle, "switch"), (self.clear, "clear")):
            button.add_class(f"tradingbot-{word}-{name}")

    def show(self, flag: FlagState) -> None:
        """Show the flag as it stands."""
        from html import escape

        from tradingbot.ui.plain import printable

        self.on = bool(flag.on)
        word = "unknown" if flag.on is None else "on" if flag.on else "OFF"
        override = f" &middot; override {escape(printable(flag.override))}" if flag.override else ""
        means = escape(printable(flag.off_means))
        text = f"<b>{flag.name}</b> <b>{word}</b> ({flag.takes_effect}){override}<br><small>off: {means}</small>"
        if self._text.value != text:
            self._text.value = text
        self.toggle.description = "switch off" if self.on else "switch on"
        self.toggle.disabled = flag.on is None
        self.clear.disabled = not flag.override


def _reason() -> Any:
    """Return a field for a reason; a letter at a time the browser would hold some back, and a click overtake them."""
    import ipywidgets as w

    wide = w.Layout(width="420px")
    text = "why, for the audit (a switch needs it)"
    field = w.Text(placeholder=text, description="reason", layout=wide, continuous_update=False)
    _acknowledge(field)
    return field


def _soon(act: Callable[[], None]) -> None:
    """Do something once a change that the browser held back has come in: a click may overtake it."""
    loop = _running_loop()
    if loop is None:
        act()
    else:
        loop.call_later(HELD_BACK_S, act)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _acknowledge(widget: Any) -> None:
    """Have changes of a widget handled where clicks are, and the browser told of each, also while a cell runs.

    ipykernel may hand them to another thread, where they race with clicks; and it does not tell that they were
    handled, so that the browser would hold back every one but the first.
    """
    from IPython import get_ipython

    kernel, loop = getattr(get_ipython(), "kernel", None), _running_loop()
    if kernel is None:
        return

    def handle(message: Mapping[str, Any]) -> None:
        widget._handle_msg(message)
        done = {"execution_state": "idle"}
        kernel.session.send(kernel.iopub_socket, "status", done, parent=message, ident=b"kernel.status")

    def take(message: Mapping[str, Any]) -> None:
        if loop is None or loop is _running_loop():
            handle(message)
        else:
            loop.call_soon_threadsafe(handle, message)

    widget.comm.on_msg(take)


def _all(widget: Any) -> list[Any]:
    """Return a widget and all that stand in it, the innermost first."""
    return [inner for child in getattr(widget, "children", ()) for inner in _all(child)] + [widget]
