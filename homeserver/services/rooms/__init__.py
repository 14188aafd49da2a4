"""Rooms: their heads, how events are made and accepted, and what members do in them."""
