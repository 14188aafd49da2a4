"""HTTP, beneath all APIs: from a request to a handler and back.

`protocol` is the connection, `handler` what happens to a request, `router` finds its route, `request` is what handlers
see of it, `answer` writes what they return. Routes are data, declared by the modules of the APIs (docs/adr/0002).
"""
