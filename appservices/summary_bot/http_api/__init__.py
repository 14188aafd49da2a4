"""The same answers as JSON, for programs and buttons."""
