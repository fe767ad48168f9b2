-- The one row of what is true of the whole database.
CREATE TABLE meta (
    version INTEGER NOT NULL,   -- of the newest change of any post
    posts INTEGER NOT NULL,     -- how many are kept, without the default counter
    visitors INTEGER NOT NULL,  -- rows of `visitors`
    server BLOB NOT NULL,       -- whose batch was the last,
    batch INTEGER NOT NULL      -- and its number
) STRICT;
INSERT INTO meta VALUES (0, 0, 0, x'', 0);

CREATE TABLE posts (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,  -- that of the default counter is empty
    visitors INTEGER NOT NULL DEFAULT 0 CHECK (visitors >= 0),    -- who like it
    anonymous INTEGER NOT NULL DEFAULT 0 CHECK (anonymous >= 0),  -- likes from nobody in particular
    version INTEGER NOT NULL DEFAULT 0,                           -- of its last change
    likes INTEGER AS (visitors + anonymous) CHECK (likes <= 9007199254740991)
) STRICT;
INSERT INTO posts (name) VALUES ('');
-- Of those with as many likes, the one that had them first. So a like moves its post to the end of those, which is one
-- page for all posts, and not one for each.
CREATE INDEX most_liked ON posts (likes DESC, version);

CREATE TABLE visitors (
    post INTEGER NOT NULL,
    visitor BLOB NOT NULL,
    liked INTEGER NOT NULL,     -- 1, or 0 after an unlike with a `seq`
    seq INTEGER,                -- the highest so far
    PRIMARY KEY (post, visitor)
) STRICT, WITHOUT ROWID;

-- What others than the running server have changed since its start, for it to show.
CREATE TABLE edits (version INTEGER PRIMARY KEY, post INTEGER NOT NULL) STRICT;

-- `UPDATE posts SET anonymous = 100 WHERE name = 'hello'` by hand gets its version here.
CREATE TRIGGER edited AFTER UPDATE OF visitors, anonymous ON posts WHEN NEW.version = OLD.version BEGIN
    UPDATE meta SET version = version + 1;
    UPDATE posts SET version = (SELECT version FROM meta) WHERE id = NEW.id;
    INSERT INTO edits SELECT version, NEW.id FROM meta;
END;

-- So does `INSERT INTO posts (name, anonymous) VALUES ('hello', 100)`.
CREATE TRIGGER added AFTER INSERT ON posts WHEN NEW.anonymous > 0 BEGIN
    UPDATE meta SET version = version + 1, posts = posts + 1;
    UPDATE posts SET version = (SELECT version FROM meta) WHERE id = NEW.id;
    INSERT INTO edits SELECT version, NEW.id FROM meta;
END;
