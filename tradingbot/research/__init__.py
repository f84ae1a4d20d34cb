"""What is recorded as tables and figures, and what can be learnt from it."""
