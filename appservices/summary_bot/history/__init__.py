"""Reads the part of a room's history that somebody asks about, and may see."""
