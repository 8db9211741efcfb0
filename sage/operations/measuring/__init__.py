"""What ``sage bench`` does: a topology under load, in processes of its own, and what is seen of it from outside."""
