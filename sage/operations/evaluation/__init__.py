"""What ``sage topology eval`` does: a data set through a topology of its own name, and how near its answers are."""
