"""Floor 1, pure: tickers, guards, windows, anchors and drop triggers. No clock, no I/O, no logging."""
