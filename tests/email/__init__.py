"""E-mail, with a real SMTP server in the tests' process."""
