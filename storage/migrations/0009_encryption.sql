-- End-to-end encryption: the keys of devices and users, messages from device to device, backups of room keys.

-- What a device has uploaded, in one row: a change of it is a change of its user's device list.
CREATE TABLE device_keys (
    device          integer PRIMARY KEY REFERENCES devices ON DELETE CASCADE,
    json            bytea NOT NULL
);

-- Given out in the order of `upload`, each once: whoever deletes a row has the key.
CREATE TABLE one_time_keys (
    device          integer NOT NULL REFERENCES devices ON DELETE CASCADE,
    algorithm       text NOT NULL,
    upload          bigint GENERATED ALWAYS AS IDENTITY,
    key_id          text NOT NULL,
    json            bytea NOT NULL,
    PRIMARY KEY (device, algorithm, key_id)
);
CREATE INDEX one_time_keys_order ON one_time_keys (device, algorithm, upload);

-- What was given out of late: an upload that is sent again does not bring it back.
CREATE TABLE spent_keys (
    device          integer NOT NULL REFERENCES devices ON DELETE CASCADE,
    hash            bytea NOT NULL,             -- SHA-256 of the key's JSON
    spent_ts        bigint NOT NULL,
    PRIMARY KEY (device, hash)
);

CREATE TABLE fallback_keys (
    device          integer NOT NULL REFERENCES devices ON DELETE CASCADE,
    used            boolean NOT NULL DEFAULT false,
    algorithm       text NOT NULL,
    key_id          text NOT NULL,
    json            bytea NOT NULL,
    PRIMARY KEY (device, algorithm)
);

CREATE TABLE cross_signing_keys (
    user_id         text NOT NULL REFERENCES users,
    usage           text NOT NULL,              -- master, self_signing or user_signing
    public_key      text NOT NULL,
    json            bytea NOT NULL,
    PRIMARY KEY (user_id, usage)
);

-- Signatures that were uploaded after the key they sign; also of other servers' users' keys.
CREATE TABLE key_signatures (
    user_id         text NOT NULL,
    key             text NOT NULL,              -- a device ID, or a public key
    signer          text NOT NULL,
    signing_key     text NOT NULL,
    position        bigint NOT NULL,
    signature       text NOT NULL,
    PRIMARY KEY (user_id, key, signer, signing_key)
);
CREATE INDEX key_signatures_signer ON key_signatures (signer, position);

-- When a user's devices or their keys changed last. A change whose position is still to be taken is pending.
CREATE TABLE device_lists (
    user_id         text PRIMARY KEY,
    position        bigint NOT NULL DEFAULT 0,
    pending         boolean NOT NULL DEFAULT false
);
CREATE INDEX device_lists_position ON device_lists (position);
CREATE INDEX device_lists_pending ON device_lists (user_id) WHERE pending;

-- Finds who has come to a user's rooms, or gone, since a position.
CREATE INDEX memberships_room_position ON memberships (room, position);
DROP INDEX memberships_room;

-- No reference to devices: the stream's writer neither fails nor waits because a device goes at that moment.
CREATE TABLE to_device_messages (
    device          integer NOT NULL,
    position        bigint NOT NULL,
    json            bytea NOT NULL,
    PRIMARY KEY (device, position)
);

CREATE TABLE to_device_transactions (
    source          text NOT NULL,              -- a device of this server and a type, or another server's user
    txn_id          text NOT NULL,
    sent_ts         bigint NOT NULL,
    PRIMARY KEY (source, txn_id)
);

CREATE TABLE dehydrated_devices (
    user_id         text PRIMARY KEY REFERENCES users,
    device          integer NOT NULL UNIQUE REFERENCES devices ON DELETE CASCADE,
    device_data     bytea NOT NULL
);

-- Versions of a user are numbered from 1 on; a deleted one keeps its row, for no other may have its number.
CREATE TABLE key_backups (
    backup          integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id         text NOT NULL REFERENCES users,
    version         bigint NOT NULL,
    etag            bigint NOT NULL DEFAULT 0,
    key_count       integer NOT NULL DEFAULT 0,
    deleted         boolean NOT NULL DEFAULT false,
    algorithm       text NOT NULL,
    auth_data       bytea NOT NULL,
    UNIQUE (user_id, version)
);

CREATE TABLE backed_up_keys (
    backup          integer NOT NULL REFERENCES key_backups ON DELETE CASCADE,
    room_id         text NOT NULL,
    session_id      text NOT NULL,
    first_message_index bigint NOT NULL,
    forwarded_count bigint NOT NULL,
    is_verified     boolean NOT NULL,
    session_data    bytea NOT NULL,
    PRIMARY KEY (backup, room_id, session_id)
);
