-- The ledger: what benefits-sync remembers, beside the HR tables and independent of them.
-- Nothing here refers to an HR table: no foreign key, no view, no trigger. An HR migration never meets us.

create table benefits.site (
    only_row boolean not null default true,
    platform_id text,
    time_zone text not null default 'Europe/London',
    fingerprint_check bytea,
    publication name not null default 'benefits_sync',
    record_query text,
    record_key_type text,
    described text[] not null default '{}',
    described_as text[] not null default '{}',
    query_functions text[] not null default '{}',
    rules_version bigint not null default 1,
    paused_reason text,
    halted_code text,
    halted_reason text,
    doubt text,
    clock_on date,
    constraint site_pk primary key (only_row),
    constraint site_one_row_ck check (only_row)
);
comment on table benefits.site is
'One row: the site''s description, its platform, and whether delivery is paused, halted or in doubt.';
comment on column benefits.site.clock_on is
'The last day whose effective-dated rows have been marked: what a midnight without a running instance left over is made up.';
insert into benefits.site default values;

create table benefits.query_column (
    table_schema name not null,
    table_name name not null,
    column_name name not null,
    constraint query_column_pk primary key (table_schema, table_name, column_name)
);
comment on table benefits.query_column is
'Table columns that the described record query reads, found when it was described (HR''s own views expanded).';

create table benefits.source (
    source_id integer generated always as identity,
    table_schema name not null,
    table_name name not null,
    table_oid oid not null,
    employee_key name,
    affected text,
    starter_flag name,
    effective_from name,
    declared_columns name[],
    mapped_columns name[] not null,
    key_columns name[] not null,
    is_root boolean not null,
    tracked boolean not null,
    constraint source_pk primary key (source_id),
    constraint source_table_uq unique (table_schema, table_name),
    constraint source_way_ck check (
        (employee_key is null) <> (affected is null)
    )
);
comment on table benefits.source is
'HR tables under the record query: how a changed row leads to the employees that it affects.';

create table benefits.description (
    only_row boolean not null default true,
    version bigint not null default 1,
    constraint description_pk primary key (only_row),
    constraint description_one_row_ck check (only_row)
);
comment on table benefits.description is
'Counts changes of the site''s description. Published, so that the reader meets a change at its place in the WAL.';
insert into benefits.description default values;

create table benefits.picklist_value (
    field text not null,
    hr_value text not null,
    benefits_value text not null,
    constraint picklist_value_pk primary key (field, hr_value),
    constraint picklist_value_field_ck check (
        field in (
            'title', 'gender', 'payBasis', 'payFrequency', 'payChangeReason',
            'pay_basis', 'pay_frequency', 'pay_change_reason'
        )
    )
);
comment on table benefits.picklist_value is
'The site''s translations: what Benefits calls an HR value. Published: a change replays everyone it had blocked.';

create table benefits.level_package (
    level text not null,
    package_id text not null,
    constraint level_package_pk primary key (level)
);
comment on table benefits.level_package is
'Which package of the platform a Benefits Level means. Published, as translations are.';

create table benefits.employee (
    employee_id text not null,
    starter_baseline boolean not null default false,
    first_seen_at timestamptz not null default now(),
    gone_at timestamptz,
    constraint employee_pk primary key (employee_id)
);
comment on table benefits.employee is
'Employees known to exist in HR, kept by the stream and by reconcile, so that a list of them costs HR nothing.';
comment on column benefits.employee.starter_baseline is
'The starter flag was up already when the integration was set up: not a starter.';

create table benefits.enrolment (
    employee_id text not null,
    platform_id text not null,
    benefits_id text,
    linked boolean not null default false,
    enrolled_at timestamptz not null default now(),
    requested_by text not null,
    version bigint not null default 0,
    acknowledged bytea,
    unknown_fields bigint not null default 0,
    create_unresolved boolean not null default false,
    outcome text,
    error_code text,
    error text,
    last_synced_at timestamptz,
    transferred_to text,
    transferred_from text,
    link_by text,
    discarded bytea,
    constraint enrolment_pk primary key (employee_id),
    constraint enrolment_account_uq unique (platform_id, benefits_id),
    constraint enrolment_outcome_ck check (outcome in ('successful', 'failed')),
    constraint enrolment_failed_ck check ((outcome is not distinct from 'failed') = (error_code is not null)),
    constraint enrolment_version_ck check (version between 0 and 9007199254740991),
    constraint enrolment_link_by_ck check (link_by in ('transfer', 'relink'))
)
with (fillfactor = 60);
create index enrolment_failed_ix on benefits.enrolment (employee_id) where outcome = 'failed';
comment on table benefits.enrolment is
'Synced employees: the linked account, what it has acknowledged (keyed fingerprints, never values), the last outcome.';
comment on column benefits.enrolment.version is
'Highest sourceVersion used or seen for the account; only rises.';
comment on column benefits.enrolment.create_unresolved is
'A create was sent and its answer never came: an account with this employee''s id may be ours to adopt.';
comment on column benefits.enrolment.unknown_fields is
'Bit set of fields whose state at the platform is unknown; they are part of the next write.';

comment on column benefits.enrolment.transferred_to is
'The employee who took the account over: this one sends nothing any more.';
comment on column benefits.enrolment.link_by is
'The command that the next link is made for: it may take an account that a match by email alone may not.';
comment on column benefits.enrolment.discarded is
'Keyed hash of the record whose mass change a person has discarded: it is not sent until HR changes it again.';

create table benefits.failed (
    employee_id text not null,
    constraint failed_pk primary key (employee_id)
);
comment on table benefits.failed is
'Whose latest attempt was rejected. Published: the reader meets each at its place in the WAL, so that any later save retries.';

create table benefits.request (
    request_id bigint generated always as identity,
    employee_id text not null,
    kind text not null,
    argument text,
    requested_by text not null,
    requested_at timestamptz not null default clock_timestamp(),
    constraint request_pk primary key (request_id),
    constraint request_kind_ck check (kind in ('sync', 'level', 'transfer', 'relink', 'release', 'discard'))
);
create index request_employee_ix on benefits.request (employee_id);
comment on table benefits.request is
'Commands that were given and not yet passed by the reader. Published: the WAL puts them in order with HR''s changes.';

-- Room for 16 million marks between two of them: a row that comes back never repeats a seq of the one that was cleared.
create sequence benefits.pending_life;

create table benefits.pending (
    employee_id text not null,
    seq bigint not null default nextval('benefits.pending_life') << 24,
    cause text not null,
    bulk boolean not null default false,
    in_full boolean not null default false,
    requested_by text,
    pending_since timestamptz not null default clock_timestamp(),
    changed_at timestamptz not null,
    last_changed_at timestamptz not null,
    progressed_at timestamptz not null default clock_timestamp(),
    attempts integer not null default 0,
    not_before timestamptz,
    claim bigint,
    intent_kind text,
    intent_version bigint,
    intent_fields bigint not null default 0,
    intent_hash bytea,
    batch bigint,
    ending bytea,
    ending_kind text,
    hold_id bigint,
    hold_seq bigint,
    hold_ending bytea,
    hold_passed boolean not null default false,
    constraint pending_pk primary key (employee_id),
    constraint pending_cause_ck check (
        cause in ('change', 'starter', 'sync', 'lookup', 'rules', 'reconcile', 'time', 'transfer', 'relink')
    ),
    constraint pending_intent_ck check (
        (intent_kind is null) = (intent_version is null)
        and intent_kind in ('create', 'link', 'update')
    )
)
with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
comment on table benefits.pending is
'One row an employee who may be out of step. seq counts the marks: an outcome clears the row only for the seq it read.';
comment on column benefits.pending.claim is
'Fencing token of the instance that is delivering; it lives as long as that instance''s session-level advisory lock.';
comment on column benefits.pending.intent_version is
'sourceVersion of the write that may be on its way; durable before its first byte leaves.';

comment on column benefits.pending.batch is
'The mass change that marked the employee, until it is judged: see benefits.mass_change.';
comment on column benefits.pending.ending is
'Keyed hash of the record that was judged to end the employee (a leave date, a lost mandatory field, a deleted row).';
comment on column benefits.pending.hold_seq is
'The marks counted when the employee was held: only another mark makes them due again.';
comment on column benefits.pending.hold_ending is
'The ending that is held, whatever has been marked since: what a person discards.';
comment on column benefits.pending.hold_passed is
'A person has released the employee from a hold: not held again.';
create index pending_batch_ix on benefits.pending (batch) where batch is not null;
create index pending_hold_ix on benefits.pending (hold_id) where hold_id is not null;

create sequence benefits.claim_token;

create table benefits.history (
    at timestamptz not null default clock_timestamp(),
    history_id bigint generated always as identity,
    employee_id text not null,
    event text not null,
    fields bigint not null default 0,
    outcome text not null,
    error_code text,
    error text,
    requested_by text,
    latency interval,
    request_id text,
    constraint history_event_ck check (
        event in ('linked', 'created', 'updated', 'rejected', 'held', 'released', 'discarded', 'transferred', 'relinked')
    ),
    constraint history_outcome_ck check (outcome in ('successful', 'failed', 'waiting', 'discarded'))
)
partition by range (at);
create index history_employee_ix on benefits.history (employee_id, at desc);
-- History is written in the order of time: this index is a few pages, however long the history.
create index history_at_ix on benefits.history using brin (at) with (autosummarize = on);
create table benefits.history_default partition of benefits.history default;
comment on table benefits.history is
'Append-only, a partition a month: what was done for whom, with field names and never a value.';

create table benefits.row_owner (
    source_id integer not null,
    row_key text not null,
    employee_id text not null,
    constraint row_owner_pk primary key (source_id, row_key)
);
create index row_owner_employee_ix on benefits.row_owner (employee_id);
comment on table benefits.row_owner is
'Which synced employee a child row belonged to when last seen: its deletion or re-pointing carries only its own key.';

create table benefits.checkpoint (
    only_row boolean not null default true,
    system_id text not null,
    timeline integer not null,
    platform_id text not null,
    slot_name name not null,
    slot_generation bigint not null default 1,
    lsn pg_lsn not null,
    reconciled_at timestamptz,
    constraint checkpoint_pk primary key (only_row),
    constraint checkpoint_one_row_ck check (only_row)
);
comment on table benefits.checkpoint is
'Which WAL the ledger has followed, and how far. Anything else than this system, timeline and slot is doubt.';
