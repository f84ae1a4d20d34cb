"""What commands do: one function each, from parsed arguments to an exit code; heavy imports inside."""
