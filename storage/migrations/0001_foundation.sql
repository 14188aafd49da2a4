-- What is acknowledged is here. Positions are numbers in one total order over everything that a /sync can show;
-- a batch of writes is committed whole, by one writer, in the order of its positions (see ARCHITECTURE.md).

-- Positions are handed out in memory from blocks reserved here, so that none is ever used twice.
CREATE TABLE stream (
    only_row        boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    reserved_until  bigint NOT NULL,
    server_name     text
);
INSERT INTO stream (reserved_until) VALUES (0);

-- Accounts ----------------------------------------------------------------------------------------------------------

CREATE TABLE users (
    user_id         text PRIMARY KEY,
    password_hash   text,
    is_admin        boolean NOT NULL DEFAULT false,
    deactivated     boolean NOT NULL DEFAULT false,
    appservice_id   text,
    created_ts      bigint NOT NULL,
    profile         bytea NOT NULL DEFAULT '{}'
);

CREATE TABLE devices (
    device          integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id         text NOT NULL REFERENCES users,
    device_id       text NOT NULL,
    display_name    text,
    last_seen_ts    bigint,
    last_seen_ip    text,
    UNIQUE (user_id, device_id)
);

-- Only a hash of each token is kept: a copy of the database lets nobody in.
CREATE TABLE access_tokens (
    token_hash      bytea PRIMARY KEY,
    device          integer NOT NULL REFERENCES devices ON DELETE CASCADE
);
CREATE INDEX access_tokens_device ON access_tokens (device);

CREATE TABLE uia_sessions (
    session         text PRIMARY KEY,
    request_hash    bytea NOT NULL,
    completed       text[] NOT NULL DEFAULT '{}',
    created_ts      bigint NOT NULL
);

CREATE TABLE filters (
    user_id         text NOT NULL REFERENCES users,
    filter_id       integer NOT NULL,
    filter          bytea NOT NULL,
    PRIMARY KEY (user_id, filter_id)
);

CREATE TABLE account_data (
    user_id         text NOT NULL REFERENCES users,
    room            integer NOT NULL DEFAULT 0,
    type            text NOT NULL,
    content         bytea NOT NULL,
    position        bigint NOT NULL,
    PRIMARY KEY (user_id, room, type)
);

-- Rooms -------------------------------------------------------------------------------------------------------------

CREATE TABLE rooms (
    room            integer PRIMARY KEY,
    room_id         text NOT NULL UNIQUE,
    version         text NOT NULL,
    creator         text NOT NULL,
    is_public       boolean NOT NULL DEFAULT false
);

-- One row per event. The position is the event's place in the stream: negative for history fetched later.
-- prev_events and auth_events stand in the JSON and nowhere else.
CREATE TABLE events (
    position        bigint PRIMARY KEY,
    snapshot        bigint NOT NULL,            -- the room's state after the event; 0 for an event without one
    room            integer NOT NULL,
    notify_count    integer NOT NULL,           -- running count of events that notify by the default push rules
    highlight_count integer NOT NULL,           -- the same for those that highlight for every member
    device          integer,                    -- the sending device, whose txn_id this is
    kind            smallint NOT NULL,          -- 0 timeline, 1 outlier, 2 rejected, 3 soft-failed
    notifies        boolean NOT NULL,
    event_id        text NOT NULL UNIQUE,
    sender          text NOT NULL,
    type            text NOT NULL,
    json            bytea NOT NULL,             -- as signed; the redacted form once redacted
    txn_id          text,
    replaces        bigint,                     -- state events: the event whose place in the state this one took
    redacted_by     bigint,
    extremities     bigint[],                   -- forward extremities after the event, where they are not it alone
    room_snapshot   bigint                      -- the room's state then, where it is not the event's own
) WITH (toast_tuple_target = 8160);
ALTER TABLE events ALTER COLUMN json SET STORAGE MAIN;
CREATE INDEX events_timeline ON events (room, position) WHERE kind = 0;
CREATE INDEX events_own ON events (room, sender, position) WHERE notifies;
CREATE INDEX events_redacted ON events (room, position) WHERE notifies AND redacted_by IS NOT NULL;
CREATE INDEX events_transaction ON events (device, txn_id) WHERE txn_id IS NOT NULL;

-- The (type, state_key) pairs of a room, numbered within it.
CREATE TABLE state_keys (
    room            integer NOT NULL,
    key             integer NOT NULL,
    type            text NOT NULL,
    state_key       text NOT NULL,
    PRIMARY KEY (room, key)
);

-- State snapshots as layered differences. A snapshot at depth d holds what changed since its base, the snapshot at
-- depth d & (d - 1) of the same chain: any snapshot is read in at most log2(d) steps, and n changes cost at most
-- n/2 * log2(n) entries. Entries are sorted by key, in chunks, so that one key is found without reading the rest.
CREATE TABLE snapshots (
    snapshot        bigint NOT NULL,
    first_key       integer NOT NULL,
    base            bigint NOT NULL,            -- 0: the empty state
    depth           integer NOT NULL,
    keys            integer[] NOT NULL,
    positions       bigint[] NOT NULL,
    PRIMARY KEY (snapshot, first_key)
);

-- Everyone's membership as it is now, and when it became so.
CREATE TABLE memberships (
    user_id         text NOT NULL,
    room            integer NOT NULL,
    position        bigint NOT NULL,
    membership      text NOT NULL,
    forgotten       boolean NOT NULL DEFAULT false,
    PRIMARY KEY (user_id, room)
);
CREATE INDEX memberships_room ON memberships (room);

CREATE TABLE aliases (
    alias           text PRIMARY KEY,
    room            integer NOT NULL REFERENCES rooms,
    creator         text NOT NULL
);
CREATE INDEX aliases_room ON aliases (room);

-- Read receipts and m.fully_read's position. The counts are those of the event the receipt points at.
CREATE TABLE receipts (
    room            integer NOT NULL,
    user_id         text NOT NULL,
    type            text NOT NULL,
    thread_id       text NOT NULL DEFAULT '',
    position        bigint NOT NULL,
    event_id        text NOT NULL,
    event_position  bigint NOT NULL,
    ts              bigint NOT NULL,
    notify_count    integer NOT NULL,
    highlight_count integer NOT NULL,
    PRIMARY KEY (room, user_id, type, thread_id)
);

-- What an event did to one member's counts beyond what it did to everyone's: a mention, a keyword.
CREATE TABLE personal_counts (
    room            integer NOT NULL,
    user_id         text NOT NULL,
    position        bigint NOT NULL,
    notify          smallint NOT NULL,
    highlight       smallint NOT NULL,
    PRIMARY KEY (room, user_id, position)
);
