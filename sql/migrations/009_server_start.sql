-- When the server was started that the ledger was on last, and which reader has followed it there.

alter table benefits.checkpoint
add column server_started timestamptz,
add column reader bigint not null default 0;
comment on column benefits.checkpoint.server_started is
'When the server was started that the slot was last read from. A slot that is gone from a server that has run all the while '
'was dropped; one that is gone after a restart was perhaps left out of a copy of the files, and the ledger is older than it looks.';
comment on column benefits.checkpoint.reader is
'Raised by each reader that takes the slot. One that was overtaken since may not say where, or how, the reading has ended.';
