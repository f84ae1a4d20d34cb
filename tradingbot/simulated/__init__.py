"""The embedded exchange, a house of its own: it imports nothing of the bot but errors and settings."""
