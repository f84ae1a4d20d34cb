"""Floor 4: the engine put to work on recorded data."""
