-- Devices and keys of other servers' users who share rooms with users here, as their servers told last.
CREATE TABLE remote_device_lists (
    user_id         text PRIMARY KEY,
    stream_id       bigint NOT NULL,            -- of the last change that is in it; 0 where that is not known
    position        bigint NOT NULL,            -- the stream's when it was asked for
    stale           boolean NOT NULL,
    json            bytea NOT NULL
);
