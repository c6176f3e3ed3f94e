"""One runtime a file: DEVICES, versions(), refuse(path, device), open_session(path, threads, device)."""
