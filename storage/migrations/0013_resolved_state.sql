-- When a key's state last changed without an event of its own, where branches of the room met: /sync tells of it.
ALTER TABLE state_keys ADD COLUMN resolved_position bigint;
