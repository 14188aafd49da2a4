"""Where files' bytes are: a local directory, or an S3-compatible store. Which name has which content: storage.media.

Files come in through a spool, a local directory in which they are hashed before it is known where they belong.
"""
