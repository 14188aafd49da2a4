"""Rooms shared with other servers: what comes from them, what goes to them, joining theirs and letting them join ours.

The network is behind the Protocols of `homeserver/services/remote.py`, which `federation.outbound` provides.
"""
