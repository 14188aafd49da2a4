-- Application services: how far each was told what happens, the transaction that is on its way to it, and the rooms
-- that they list for the networks behind them.

-- Where a service acts as a user without a device, this number stands for one: transaction IDs are kept by it.
-- It is negative, so that it is no device's.
CREATE SEQUENCE appservice_devices AS integer INCREMENT -1 START -1;
ALTER TABLE users ADD COLUMN appservice_device integer;

-- The transaction in flight is named by its ID and made of the events and the rest; sent again, it is the same.
CREATE TABLE appservice_streams (
    service         text PRIMARY KEY,
    position        bigint NOT NULL,            -- all events up to it were handed over
    transaction_id  text,                       -- null: none is in flight
    up_to           bigint,                     -- the position once that is handed over
    events          bigint[],
    extra           bytea                       -- its other parts, as JSON
);

CREATE TABLE network_rooms (
    network         text NOT NULL,
    room            integer NOT NULL REFERENCES rooms,
    service         text NOT NULL,
    PRIMARY KEY (network, room)
);
CREATE INDEX network_rooms_room ON network_rooms (room);
