"""Floor 6: tools for the person who runs a bot."""
