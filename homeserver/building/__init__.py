"""Putting the server together: every part is made here, once, and handed to those that need it."""
