-- Records accepted updates of employees in hand, who have no mark, and writes history: one statement, one flush.
-- Arrays, in the order of ids so that two instances lock in one order: $1 id, $2 $3 where the enrolment's row lay and its
-- version, as it was loaded, $4 version, $5 acknowledged, $6 fields sent, $7 request id, $8 seconds since the answer, $9 when
-- HR committed.
-- Returns whom it was recorded for: nobody whose enrolment has changed, or whom somebody else delivers.
-- Keys are compared so that no plan reads a whole table: see Session::connect_by_key.
with o as materialized (
    select *
    from unnest(
        $1::text[], $2::text[], $3::text[], $4::bigint[], $5::bytea[], $6::bigint[], $7::text[], $8::float8[],
        $9::timestamptz[]
    ) as o (employee_id, place, row_version, version, acknowledged, fields, request_id, age, changed_at)
),
state as (
    update benefits.enrolment as e
    set
        version = greatest(e.version, o.version), acknowledged = o.acknowledged, unknown_fields = 0,
        last_synced_at = clock_timestamp()
    from o
    where
        -- Found where it lay, without a search: a row that lies elsewhere now is another version. The key is compared the other
        -- way round, which no index can be searched by.
        e.ctid = o.place::tid and e.xmin = o.row_version::xid and o.employee_id = any (array[e.employee_id])
        and not exists (
            select from benefits.pending as p where p.employee_id = any (array[o.employee_id]) and p.claim is not null
        )
    returning
        o.employee_id, o.fields, o.request_id,
        clock_timestamp() - make_interval(secs => o.age) - o.changed_at as latency
),
lines as (
    insert into benefits.history (employee_id, event, fields, outcome, latency, request_id)
    select s.employee_id, 'updated', s.fields, 'successful', s.latency, s.request_id from state as s
)
select s.employee_id, date_part('epoch', s.latency) as latency from state as s
