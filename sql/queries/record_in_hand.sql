-- Records accepted updates of employees in hand, who have no mark, and writes history: one statement, one flush.
-- Arrays, in the order of ids so that two instances lock in one order: $1 id, $2 the enrolment's row version as it was
-- loaded, $3 version, $4 acknowledged, $5 fields sent, $6 request id, $7 seconds since the answer, $8 when HR committed.
-- Returns whom it was recorded for: nobody whose enrolment has changed, or whom somebody else delivers.
with o as materialized (
    select *
    from unnest(
        $1::text[], $2::text[], $3::bigint[], $4::bytea[], $5::bigint[], $6::text[], $7::float8[], $8::timestamptz[]
    ) as o (employee_id, row_version, version, acknowledged, fields, request_id, age, changed_at)
),
state as (
    update benefits.enrolment as e
    set
        version = greatest(e.version, o.version), acknowledged = o.acknowledged, unknown_fields = 0,
        last_synced_at = clock_timestamp()
    from o
    where
        e.employee_id = o.employee_id and e.xmin = o.row_version::xid
        and not exists (
            select from benefits.pending as p where p.employee_id = o.employee_id and p.claim is not null
        )
    returning
        o.employee_id, o.fields, o.request_id,
        clock_timestamp() - make_interval(secs => o.age) - o.changed_at as latency
),
lines as (
    insert into benefits.history (employee_id, event, fields, outcome, latency, request_id)
    select s.employee_id, 'updated', s.fields, 'successful', s.latency, s.request_id from state as s
)
select s.employee_id, extract(epoch from s.latency)::float8 as latency from state as s
