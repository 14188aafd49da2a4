"""The network that application services are reached over."""
