"""What servers tell each other beside events: who types, who has read what, who is there.

https://spec.matrix.org/v1.19/server-server-api/#edus
"""
