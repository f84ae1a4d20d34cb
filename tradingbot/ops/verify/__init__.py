"""Whether a bot is as it should be: the checklist as one report, GO or NO-GO."""
