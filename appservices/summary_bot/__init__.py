"""The summary bot: a program of its own that talks to a homeserver over HTTP only."""
