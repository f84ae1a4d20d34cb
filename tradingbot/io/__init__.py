"""Floor 3: files. Readers of recorded and foreign market data, and the layers of settings."""
