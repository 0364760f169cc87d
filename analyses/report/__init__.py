"""One self-contained page of everything that was found: made for reading."""
