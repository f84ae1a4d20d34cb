"""What notebooks and interactive sessions use: the public functions, and results that show themselves."""
