"""Compression techniques, one a file, found by file name; what a file must offer is in ``contract``."""
