"""Programs that stand beside the homeserver as application services."""
