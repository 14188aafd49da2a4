-- Users' own push rules, and counts by thread (docs/adr/0007). Events from before this migration count as being in
-- the main timeline: nobody has a receipt in a thread yet.

-- How a user's events are counted, from a position on: see docs/adr/0007. A row without a room is for all rooms that
-- have none of their own; is_own NULL sends a room back to that.
CREATE TABLE counting_modes (
    user_id         text NOT NULL,
    room_id         text NOT NULL,
    position        bigint NOT NULL,
    is_own          boolean,
    PRIMARY KEY (user_id, room_id, position)
);

-- One row per event that is in a thread, with running counts: of its thread, and of all threads of the room.
CREATE TABLE thread_events (
    room            integer NOT NULL,
    position        bigint NOT NULL,
    thread          text NOT NULL,
    notify_count    integer NOT NULL,
    highlight_count integer NOT NULL,
    threads_notify_count    integer NOT NULL,
    threads_highlight_count integer NOT NULL,
    PRIMARY KEY (room, position)
);
CREATE INDEX thread_events_thread ON thread_events (room, thread, position);

-- Each thread's newest row of the above: what a room has to know of its threads.
CREATE TABLE threads (
    room            integer NOT NULL,
    thread          text NOT NULL,
    position        bigint NOT NULL,
    notify_count    integer NOT NULL,
    highlight_count integer NOT NULL,
    PRIMARY KEY (room, thread)
);

-- The events that highlight for everybody: few. Until now what was taken back from their senders told of them.
CREATE TABLE room_highlights (
    room            integer NOT NULL,
    position        bigint NOT NULL,
    PRIMARY KEY (room, position)
);
INSERT INTO room_highlights (room, position) SELECT room, position FROM personal_counts WHERE highlight < 0;
DELETE FROM personal_counts WHERE highlight < 0;
