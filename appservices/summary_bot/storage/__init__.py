"""The bot's own schema in PostgreSQL: every SQL statement of the bot is in this package."""
