-- The keys of other servers, and how long to leave alone those that do not answer.

-- Every key that was ever seen: events are verified with keys that their servers no longer publish.
CREATE TABLE server_keys (
    server_name     text NOT NULL,
    key_id          text NOT NULL,
    public_key      bytea NOT NULL,
    valid_until_ts  bigint NOT NULL,            -- for a key that is out of use: when its use ended
    is_old          boolean NOT NULL,           -- the server said that it is out of use
    PRIMARY KEY (server_name, key_id)
);

-- The newest answer of each server about its keys, with its signatures: what this server says as a notary.
CREATE TABLE server_key_answers (
    server_name     text PRIMARY KEY,
    json            bytea NOT NULL,
    valid_until_ts  bigint NOT NULL,
    fetched_ts      bigint NOT NULL
);

-- Servers that do not answer.
CREATE TABLE destinations (
    destination     text PRIMARY KEY,
    failing_since_ts bigint NOT NULL,
    retry_after_ms  bigint NOT NULL,            -- the wait that the next failure doubles
    retry_ts        bigint NOT NULL
);
