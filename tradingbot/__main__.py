"""`python -m tradingbot` is the command `tradingbot`."""

from __future__ import annotations

import sys

from tradingbot.cli import main

sys.exit(main())
