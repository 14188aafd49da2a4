"""The engine that is always there: picks sentences as they were written, in any language, without a model or a key."""
