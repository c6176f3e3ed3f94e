"""Guards: what a variant must still do on samples made harder. One a file, found by name; ``contract`` says what a file must hold."""
