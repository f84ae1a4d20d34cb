"""A running bot, watched."""
