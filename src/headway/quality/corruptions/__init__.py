"""Corruptions of samples, one a file, found by name; ``contract`` says what a file must hold."""
