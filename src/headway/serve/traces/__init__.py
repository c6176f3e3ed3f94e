"""Traces of requests for outside systems: one system a file, found by its name. A file offers ``open_traces``."""
