-- Where users want to be notified, and how far that has been done.

CREATE TABLE pushers (
    pusher          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id         text NOT NULL REFERENCES users,
    device          integer REFERENCES devices ON DELETE CASCADE,   -- which made it; null for e-mail
    app_id          text NOT NULL,
    pushkey         text NOT NULL,
    kind            text NOT NULL,
    app_display_name text NOT NULL,
    device_display_name text NOT NULL,
    profile_tag     text,
    lang            text NOT NULL,
    data            bytea NOT NULL,
    set_ts          bigint NOT NULL,
    pushed_up_to    bigint,                     -- null: as far as push_progress says
    UNIQUE (user_id, app_id, pushkey)
);
CREATE INDEX pushers_by_key ON pushers (app_id, pushkey);
CREATE INDEX pushers_by_device ON pushers (device);

-- How far all pushers have come that do not lag behind.
CREATE TABLE push_progress (
    only_row        boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    position        bigint NOT NULL
);
