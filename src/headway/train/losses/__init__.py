"""What is made small: towards labels (``task``), towards the answers of teachers (``logits``), towards their inner values (``features``)."""
