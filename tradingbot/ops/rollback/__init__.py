"""Features taken back by their flags, and forth again; a bot that begins anew."""
