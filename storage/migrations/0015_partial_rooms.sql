-- Rooms of other servers whose members are not all known yet (docs/adr/0016), and events that wait until they are.

CREATE TABLE partial_rooms (
    room            integer PRIMARY KEY REFERENCES rooms,
    join_event_id   text NOT NULL,              -- the state before it is what is to be fetched
    ground          bigint NOT NULL,            -- the snapshot that lacks members
    servers         text[] NOT NULL,            -- that are in the room, as was told; first the one that told it
    is_complete     boolean NOT NULL DEFAULT false -- the members are known; what was held back is still to be taken in
);

-- Events of other servers in these rooms, in the order in which they came.
CREATE TABLE held_events (
    number          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    room            integer NOT NULL REFERENCES rooms,
    origin          text NOT NULL,              -- who sent it
    event_id        text NOT NULL,
    json            bytea NOT NULL,             -- verified
    UNIQUE (room, event_id)
);

-- When the members of a room became known: a sync from before is told the whole state.
ALTER TABLE rooms ADD COLUMN completed_position bigint NOT NULL DEFAULT 0;
