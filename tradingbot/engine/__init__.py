"""Floor 2, pure: events in, records out. The live bot, the paper bot and the replay run this same engine."""
