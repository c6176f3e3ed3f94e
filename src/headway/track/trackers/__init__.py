"""One tracker a file: ``open(run_folder, name, config)`` gives an object with ``log(record)`` and ``close()``."""
