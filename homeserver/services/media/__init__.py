"""The content repository: https://spec.matrix.org/v1.19/client-server-api/#content-repository

`contents` takes files in and gives them out again; `uploads`, `downloads`, `thumbnails` and `previews` are what clients
ask for; `retention` deletes what nothing refers to. Images and web pages are read by `worker`, in processes of its own.
"""
