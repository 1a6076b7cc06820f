-- Everything of ours in this database is in one schema, the publication and the slot excepted.
create schema benefits;
comment on schema benefits is 'benefits-sync: its ledger and its functions. benefits-sync teardown removes it.';
create table benefits.migration (
    version integer not null,
    name text not null,
    applied_at timestamptz not null default now(),
    constraint migration_pk primary key (version)
);
comment on table benefits.migration is 'Which migrations have been applied.';
