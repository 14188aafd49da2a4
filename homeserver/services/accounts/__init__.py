"""Accounts: registration, login, sessions (devices and their tokens), interactive authentication."""
