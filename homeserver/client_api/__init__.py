"""The client-server API over HTTP: routes as data, a module per OpenAPI file of the specification."""
