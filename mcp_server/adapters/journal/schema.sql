-- The journal: one row a fact, in the order they happened. Nothing is ever updated or deleted.
CREATE TABLE event (
    seq     INTEGER PRIMARY KEY,   -- 1, 2, 3 ... without gaps; the cursor of `since`
    at_s    REAL    NOT NULL,      -- seconds since the epoch
    kind    TEXT    NOT NULL,      -- class name in core/events.py
    version INTEGER NOT NULL,      -- of that kind's body
    body    TEXT    NOT NULL,      -- JSON
    sum     INTEGER NOT NULL       -- of this row and the sum of the one before it, see chain.py
) STRICT;
