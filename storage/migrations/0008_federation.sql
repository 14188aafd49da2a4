-- Rooms shared with other servers: events that come out of order, and what is to be sent and was received.

-- State events are known before their place in the timeline is: when that comes to light, they get a position there,
-- and what refers to the one they had finds them by this.
CREATE TABLE moved_events (
    position        bigint PRIMARY KEY,         -- as it was
    moved_to        bigint NOT NULL
);

-- Events that are for this server to send to the others in their rooms.
CREATE TABLE outgoing_events (
    position        bigint PRIMARY KEY,
    added_ts        bigint NOT NULL DEFAULT (extract(epoch FROM now()) * 1000)::bigint
);

-- Redactions of events that were not known when they came.
CREATE TABLE pending_redactions (
    redacts         text NOT NULL,
    room            integer NOT NULL,
    position        bigint NOT NULL,            -- of the redaction
    PRIMARY KEY (redacts, position)
);

-- The answers to the newest transactions of other servers: one that is sent again gets the same.
CREATE TABLE received_transactions (
    origin          text NOT NULL,
    transaction_id  text NOT NULL,
    answer          bytea NOT NULL,
    received_ts     bigint NOT NULL,
    PRIMARY KEY (origin, transaction_id)
);
CREATE INDEX received_transactions_ts ON received_transactions (received_ts);

-- How far each other server has been sent the events that are for it.
CREATE TABLE destination_positions (
    destination     text PRIMARY KEY,
    position        bigint NOT NULL
);

-- EDUs that must not be lost (messages to devices, changes of device lists), until their destination has them.
CREATE TABLE outgoing_edus (
    destination     text NOT NULL,
    position        bigint NOT NULL,
    edu             bytea NOT NULL,
    added_ts        bigint NOT NULL DEFAULT (extract(epoch FROM now()) * 1000)::bigint,
    PRIMARY KEY (destination, position)
);

-- What other servers were told last of the devices of users here.
CREATE TABLE announced_devices (
    user_id         text NOT NULL,
    device_id       text NOT NULL,              -- empty for the user's own keys
    hash            bytea NOT NULL,
    PRIMARY KEY (user_id, device_id)
);

-- The rooms in which a server has members.
CREATE INDEX memberships_server ON memberships ((substr(user_id, strpos(user_id, ':') + 1)), room)
    WHERE membership = 'join';
