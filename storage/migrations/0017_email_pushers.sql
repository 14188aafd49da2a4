-- Notifications by e-mail: when a pusher is to look at what is unread, and what it has told of.

ALTER TABLE pushers
    ADD COLUMN mail_due_ts bigint,              -- null: nothing has happened since the last look
    ADD COLUMN mail_failures integer NOT NULL DEFAULT 0,
    ADD COLUMN mail_after bigint;               -- what is at this position or before is never told of
CREATE INDEX pushers_mail_due ON pushers (mail_due_ts) WHERE mail_due_ts IS NOT NULL;

CREATE TABLE mailed_rooms (
    pusher          bigint NOT NULL REFERENCES pushers ON DELETE CASCADE,
    room            integer NOT NULL,
    up_to           bigint NOT NULL,            -- the newest event that was told of
    mailed_ts       bigint NOT NULL,
    interval_ms     bigint NOT NULL,            -- before the next mail about it, unless it is read
    PRIMARY KEY (pusher, room)
);
