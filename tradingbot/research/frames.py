"""Tables with fixed columns and types, also where they hold no row; times are UTC, in milliseconds."""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tradingbot.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["LAST_MS", "frame_of", "in_ms", "moment_ms", "times", "utc"]

MINUTE_MS = 60_000
LAST_MS = 253_402_300_799_999  # the end of the year 9999
_MINUTES = 100_000_000  # a number below is minutes back, above a time in ms
_DTYPES = {"float": "float64", "int": "int64", "text": "str", "bool": "bool"}
_ABSENT: dict[str, Any] = {"float": math.nan, "int": 0, "text": "", "bool": False}


def times(ts_ms: Any) -> pd.DatetimeIndex:
    """Return times in ms as an index of UTC times; those beyond the year 9999 as its end."""
    import numpy as np
    import pandas as pd

    whole = np.clip(np.asarray(ts_ms, dtype=np.int64), 0, LAST_MS)
    return pd.DatetimeIndex(whole.astype("datetime64[ms]"), name="time").tz_localize("UTC")


def in_ms(frame: pd.DataFrame) -> Any:
    """Return the times that a table is indexed by as an array of ms."""
    import pandas as pd

    return pd.DatetimeIndex(frame.index).as_unit("ms").asi8


def utc(ts_ms: float | None, seconds: bool = True) -> str:
    """Return a time in ms as text: date and time, UTC."""
    if ts_ms is None or not math.isfinite(ts_ms):
        return ""
    moment = datetime.datetime.fromtimestamp(min(max(ts_ms, 0), LAST_MS) / 1000, datetime.UTC)
    return moment.strftime("%Y-%m-%d %H:%M:%S" if seconds else "%Y-%m-%d %H:%M")


def frame_of(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], index: str = "time") -> pd.DataFrame:
    """Return rows as a table of the named columns, indexed by the UTC time that `index` holds in ms.

    The kind of a column is `time` (ms; absent is NaT), `float` (absent is NaN), `int`, `text` or `bool`. What is of
    another kind counts as absent.
    """
    import numpy as np
    import pandas as pd

    table: dict[str, Any] = {}
    for name, kind in columns.items():
        values = [row.get(name) for row in rows]
        if kind == "time":
            table[name] = _times_or_none(values)
        elif kind == "text":
            table[name] = pd.array(["" if value is None else str(value) for value in values], dtype="str")
        else:
            told = [value if _is_kind(value, kind) else _ABSENT[kind] for value in values]
            table[name] = np.array(told, dtype=_DTYPES[kind])
    return pd.DataFrame(table, index=times([row[index] for row in rows]), columns=list(columns))


def _is_kind(value: Any, kind: str) -> bool:
    if kind == "bool":
        return isinstance(value, bool)
    if isinstance(value, bool):
        return False
    if kind == "int":
        return isinstance(value, int) and -(1 << 63) <= value < 1 << 63
    return isinstance(value, float) or (isinstance(value, int) and abs(value) < 1 << 1000)


def _times_or_none(values: Iterable[Any]) -> Any:
    import numpy as np
    import pandas as pd

    told = [min(max(value, 0), LAST_MS) if _is_kind(value, "int") else None for value in values]
    moments = np.array([np.datetime64("NaT") if value is None else value for value in told], dtype="datetime64[ms]")
    return pd.DatetimeIndex(moments).tz_localize("UTC")


def moment_ms(value: object, name: str, newest_ms: int | None) -> int | None:
    """Return a time in ms: of ISO text (UTC unless it says otherwise), a datetime, ms, or minutes back from the newest.

    None and empty text are no time. Raises UsageError, which names the parameter.
    """
    if value is None or value == "":
        return None
    if isinstance(value, str) and not (number := _number(value)):
        try:
            value = datetime.datetime.fromisoformat(value.strip())
        except ValueError:
            value = None
    elif isinstance(value, str):
        value = number
    if isinstance(value, datetime.datetime):
        moment = value if value.tzinfo is not None else value.replace(tzinfo=datetime.UTC)
        return round(moment.timestamp() * 1000)
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= LAST_MS:
        if value >= _MINUTES:
            return round(value)
        return None if newest_ms is None else round(newest_ms - value * MINUTE_MS)
    raise UsageError(
        f"{name} is no time: it takes 2026-11-23, 2026-11-23T02:30 (UTC), milliseconds, or minutes back, as 90"
    )


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    # eight digits are a date in ISO's short form, and too many minutes
    return None if not math.isfinite(number) or len(text.strip()) == 8 else number
