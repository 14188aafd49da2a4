"""The SMTP server that mails are handed to."""
