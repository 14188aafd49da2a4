-- E-mail: the addresses of accounts, and what proves them.

CREATE TABLE threepids (
    medium          text NOT NULL,
    address         text NOT NULL,              -- in its canonical form
    user_id         text NOT NULL REFERENCES users,
    validated_ts    bigint NOT NULL,
    added_ts        bigint NOT NULL,
    PRIMARY KEY (medium, address)
);
CREATE INDEX threepids_user ON threepids (user_id);

-- An attempt to prove an address, and the mail that it waits for. The token in the mail is nowhere: it is made of sid.
CREATE TABLE email_validations (
    sid             text PRIMARY KEY,
    purpose         text NOT NULL,              -- register, password, add
    address         text NOT NULL,
    secret_hash     bytea NOT NULL,             -- of the client's secret
    send_attempt    bigint NOT NULL,
    next_link       text,
    modified_ts     bigint NOT NULL,            -- asked for, or proved: it ends a day later
    validated_ts    bigint,
    failures        integer NOT NULL DEFAULT 0, -- wrong tokens
    mail_due_ts     bigint,                     -- null: no mail has to be sent
    mail_failures   integer NOT NULL DEFAULT 0,
    UNIQUE (purpose, address, secret_hash)
);
CREATE INDEX email_validations_modified ON email_validations (modified_ts);
CREATE INDEX email_validations_due ON email_validations (mail_due_ts) WHERE mail_due_ts IS NOT NULL;

-- Which of them a registration or a reset of a password that is under way has gone through.
ALTER TABLE uia_sessions ADD COLUMN email_sid text;
