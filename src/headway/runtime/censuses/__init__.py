"""One census a file, named as its runtime; reading graphs needs the extra ``tune``."""
