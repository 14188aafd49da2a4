"""The homeserver, by way of mautrix-python: the only package that knows HTTP paths of Matrix."""
