"""Use cases: what the server does, independent of how it was asked."""
