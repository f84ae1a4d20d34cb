"""What goes wrong, found one diagnosis a function, and what mends it."""
