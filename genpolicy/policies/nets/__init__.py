"""Network bodies."""
