"""The homeserver: composition root, services (use cases) and the client API."""
