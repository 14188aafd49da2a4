"""What an answer is, how it is checked against its sources, and how it becomes messages: pure."""
