"""Further ways into a server beside HTTP, one a file, found by its name."""
