"""From what somebody wrote to what they want: pure."""
