"""What this server asks of others."""
