"""E-mail: how mails are written (`templates`, `writing`), sent (`queue`) and what they prove (`validations`)."""
