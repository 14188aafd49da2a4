-- What the bot needs for encrypted rooms. Everything called `pickle` is encrypted under the key of the configuration.

CREATE TABLE own_device (
    the_one boolean PRIMARY KEY DEFAULT true CHECK (the_one),
    device_id text NOT NULL,
    account_pickle text NOT NULL,
    master_pickle text NOT NULL,
    self_signing_pickle text NOT NULL
);

-- Whose devices are known. They are out of date when something has happened to them since they were fetched. Whoever
-- has had cross-signing keys once is not believed to have none any more.
CREATE TABLE tracked_users (
    user_id text PRIMARY KEY,
    changes bigint NOT NULL DEFAULT 0,
    fetched_changes bigint NOT NULL DEFAULT -1,
    has_identity boolean NOT NULL DEFAULT false
);

CREATE TABLE devices (
    user_id text NOT NULL REFERENCES tracked_users ON DELETE CASCADE,
    device_id text NOT NULL,
    identity_key text NOT NULL,
    signing_key text NOT NULL,
    is_signed boolean NOT NULL,
    repaired_ts bigint NOT NULL DEFAULT 0,
    was_told boolean NOT NULL DEFAULT false,
    PRIMARY KEY (user_id, device_id)
);

CREATE TABLE olm_sessions (
    session_id text PRIMARY KEY,
    user_id text NOT NULL,
    identity_key text NOT NULL,
    pickle text NOT NULL,
    used_ts bigint NOT NULL
);
CREATE INDEX olm_sessions_by_device ON olm_sessions (identity_key, user_id, used_ts);
CREATE INDEX olm_sessions_by_time ON olm_sessions (used_ts);

CREATE TABLE inbound_sessions (
    session_id text NOT NULL,
    room_id text NOT NULL,
    sender text NOT NULL,
    identity_key text NOT NULL,
    pickle text NOT NULL,
    first_index bigint NOT NULL,
    was_trusted boolean NOT NULL,
    received_ts bigint NOT NULL,
    PRIMARY KEY (session_id, room_id, sender)
);
CREATE INDEX inbound_sessions_by_sender ON inbound_sessions (sender, received_ts);
CREATE INDEX inbound_sessions_by_time ON inbound_sessions (received_ts);

CREATE TABLE read_indices (
    session_id text NOT NULL,
    message_index bigint NOT NULL,
    event_id text NOT NULL,
    PRIMARY KEY (session_id, message_index)
);

CREATE TABLE outbound_sessions (
    room_id text PRIMARY KEY,
    session_id text NOT NULL UNIQUE,
    pickle text NOT NULL,
    created_ts bigint NOT NULL,
    messages integer NOT NULL DEFAULT 0,
    shared_history boolean NOT NULL
);

CREATE TABLE outbound_shares (
    session_id text NOT NULL REFERENCES outbound_sessions (session_id) ON DELETE CASCADE,
    user_id text NOT NULL,
    device_id text NOT NULL,
    identity_key text NOT NULL,
    withheld text,
    PRIMARY KEY (session_id, user_id, device_id)
);

-- Once encrypted, always encrypted, whatever the homeserver says.
CREATE TABLE encrypted_rooms (
    room_id text PRIMARY KEY
);

-- Messages to the bot's device that have not been looked at yet, still encrypted.
CREATE TABLE device_messages (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    body bytea NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    due_ts bigint NOT NULL
);

-- Events that may be questions, still encrypted; `is_waiting` for a key that has not come yet.
CREATE TABLE sealed_events (
    event_id text PRIMARY KEY,
    room_id text NOT NULL,
    session_id text NOT NULL,
    body bytea NOT NULL,
    received_ts bigint NOT NULL,
    is_waiting boolean NOT NULL DEFAULT false
);
CREATE INDEX sealed_events_by_room ON sealed_events (room_id, received_ts);
CREATE INDEX sealed_events_by_time ON sealed_events (received_ts);
CREATE INDEX sealed_events_fresh ON sealed_events (received_ts) WHERE NOT is_waiting;
