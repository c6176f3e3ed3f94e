"""Importance of channels: one file each, found by name; ``contract.py`` says what a file offers."""
