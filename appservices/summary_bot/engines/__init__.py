"""What turns messages into answers: one that needs nothing but this machine, and one that asks models."""
