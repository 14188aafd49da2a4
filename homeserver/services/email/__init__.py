"""Mails: how they are written (`templates`, `writing`), sent (`queue`) and what they prove (`validations`)."""
