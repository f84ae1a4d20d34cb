"""What is past goes, archived and read back first where that is wanted, and comes back."""
