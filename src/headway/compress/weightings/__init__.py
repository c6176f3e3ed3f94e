"""What a low rank weighs the rows of a weight by, one file each, found by its name; see ``contract``."""
