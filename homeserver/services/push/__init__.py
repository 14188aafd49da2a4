"""Pushes: who wants them (`pushers`), what is to be pushed (`following`), and how it gets there (`delivery`)."""
