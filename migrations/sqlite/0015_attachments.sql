-- Assets that a line has uploaded to Meta, so that many messages name one id in place of the URL: a row a line, kind and
-- URL. A row also keeps two workers from uploading the same at once, and remembers that Meta cannot fetch a URL.

create table attachment (
    v8l_id        integer not null references cd_v8_line on delete cascade,
    kind          text not null,                     -- mtype of the messages
    url_hash      text not null,                     -- SHA-256 of the whole URL, in hex
    url           text not null,                     -- without query and fragment, which may hold a secret
    state         text not null check (state in ('uploading', 'ready', 'unfetchable')),
    holder        text,                              -- uploading: the upload that this is
    until         text not null,                     -- the end of the holder's lease, of the id, or of the memory
    attachment_id text,
    status_code   integer,                           -- unfetchable: Graph's answer
    error_code    integer,
    error_subcode integer,
    error_message text,
    fbtrace_id    text,
    changed_at    text not null default (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    primary key (v8l_id, kind, url_hash)
);
create index attachment_until on attachment (until);
