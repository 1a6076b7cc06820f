-- What comparing everyone has to remember.

alter table benefits.site
add column doubt_count bigint not null default 0,
add column owners_version bigint not null default 0;
comment on column benefits.site.doubt_count is
'Raised with every doubt: a comparison clears only the doubts that were there when it began.';
comment on column benefits.site.owners_version is
'Raised when a comparison has corrected row_owner: the reader then loads its filter anew.';

alter table benefits.enrolment
add column refused bytea;
comment on column benefits.enrolment.refused is
'Keyed hash of the record that was refused: the nightly comparison leaves it alone for as long as it is the same. Empty: '
'a comparison never tries again, a person decides.';

alter table benefits.checkpoint
add column closed boolean not null default false,
add column slot_txns bigint,
add column publication text[] not null default '{}';
comment on column benefits.checkpoint.closed is
'The last reader stopped in order: lsn is exactly what the slot has confirmed.';
comment on column benefits.checkpoint.slot_txns is
'Transactions decoded through the slot so far, by PostgreSQL''s statistics: a smaller number is another slot.';
comment on column benefits.checkpoint.publication is
'The publication as it was: its oid, the oids of its tables'' entries, what it publishes.';
