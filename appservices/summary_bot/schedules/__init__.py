"""Digests at a time of day."""
