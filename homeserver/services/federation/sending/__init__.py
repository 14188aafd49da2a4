"""What other servers are to be told: a queue for each of them, one transaction after another.

https://spec.matrix.org/v1.19/server-server-api/#transactions
"""
