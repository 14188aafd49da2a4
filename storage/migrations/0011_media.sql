-- The content repository: what files there are, and under which names.

-- Contents of files. The bytes are in the blob store, under a name made of the hash and the number, so that what is
-- being deleted is never in the way of the same content being stored again.
CREATE TABLE blobs (
    blob            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sha256          bytea NOT NULL,
    bytes           bigint NOT NULL,
    stored          boolean NOT NULL DEFAULT false,     -- the store has it all
    doomed          boolean NOT NULL DEFAULT false,     -- it is being deleted: nothing may refer to it any more
    created_ts      bigint NOT NULL
);
CREATE UNIQUE INDEX blobs_content ON blobs (sha256) WHERE NOT doomed;
CREATE INDEX blobs_unfinished ON blobs (created_ts) WHERE NOT stored OR doomed;

-- Contents that are served under no name, also if they are deleted and come again.
CREATE TABLE quarantined_contents (
    sha256          bytea PRIMARY KEY,
    since_ts        bigint NOT NULL
);

-- Blobs that lost something that referred to them: whoever cleans up looks whether anything else does.
CREATE TABLE blob_garbage (
    garbage         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    blob            bigint NOT NULL
);

CREATE TABLE media (
    origin          text NOT NULL,
    media_id        text NOT NULL,
    blob            bigint REFERENCES blobs,            -- null while the upload is awaited
    uploader        text,                               -- null for files of other servers, and pictures of previews
    content_type    text NOT NULL,
    filename        text,
    created_ts      bigint NOT NULL,
    expires_ts      bigint,                             -- until when the upload is awaited
    last_access_ts  bigint NOT NULL,
    PRIMARY KEY (origin, media_id)
);
CREATE INDEX media_blob ON media (blob);
CREATE INDEX media_uploader ON media (uploader, created_ts) WHERE uploader IS NOT NULL;
CREATE INDEX media_awaited ON media (expires_ts) WHERE blob IS NULL;
CREATE INDEX media_cached ON media (last_access_ts) WHERE uploader IS NULL;

CREATE TABLE thumbnails (
    blob            bigint NOT NULL REFERENCES blobs,   -- of what
    width           integer NOT NULL,
    height          integer NOT NULL,
    method          text NOT NULL,
    animated        boolean NOT NULL,
    thumbnail       bigint NOT NULL REFERENCES blobs,
    content_type    text NOT NULL,
    PRIMARY KEY (blob, width, height, method, animated)
);
CREATE INDEX thumbnails_thumbnail ON thumbnails (thumbnail);

CREATE TABLE url_previews (
    url_hash        bytea PRIMARY KEY,
    answer          bytea NOT NULL,
    media_id        text,
    fetched_ts      bigint NOT NULL,
    expires_ts      bigint NOT NULL
);
CREATE INDEX url_previews_fetched ON url_previews (fetched_ts);
