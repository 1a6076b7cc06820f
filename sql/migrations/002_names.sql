-- Names for the bits of a field set, and the views that people read.

create function benefits.field_names(fields bigint) returns text[]
language sql immutable strict parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select coalesce(array_agg(f.name order by f.bit), '{}')
    from unnest(array[
        'employeeNumber', 'title', 'forenames', 'knownAs', 'surname', 'dateOfBirth', 'gender',
        'nationalInsuranceNumber', 'email', 'telephone', 'mobile', 'addressLine1', 'addressLine2',
        'addressLine3', 'addressLine4', 'postcode', 'countryCode', 'startDate', 'continuousServiceDate',
        'leaveDate', 'jobTitle', 'grade', 'department', 'location', 'weeklyHours', 'fte', 'annualPay',
        'currency', 'payBasis', 'payFrequency', 'payChangeReason', 'payEffectiveDate', 'packageId'
    ]) with ordinality as f (name, bit)
    where fields >> (f.bit::integer - 1) & 1 = 1
$$;
comment on function benefits.field_names(bigint) is 'The API''s property names in a field set.';

create function benefits.today() returns date
language sql stable parallel safe
as $$
    select coalesce(
        nullif(current_setting('benefits.as_of', true), '')::date,
        (statement_timestamp() at time zone s.time_zone)::date
    )
    from benefits.site as s
$$;
comment on function benefits.today() is
'Today in the site''s time zone, whatever the session''s. benefits.upcoming_change asks for records as of another day.';

-- Joined in the order of the key, so that a page of any order by employee_id, filtered or not, reads little more than it
-- shows. Whoever has a request or a pending row is in benefits.employee as well.
create view benefits.employee_status as
select
    k.employee_id,
    case
        when p.employee_id is not null or r.requested_at is not null then 'in_progress'
        when e.outcome = 'failed' then 'failed'
        when e.outcome = 'successful' then 'successful'
        when e.employee_id is not null then 'in_progress'
        else 'not_syncing'
    end as state,
    case when e.linked then e.benefits_id end as benefits_id,
    e.error_code as last_error_code,
    e.error as last_error,
    e.last_synced_at,
    coalesce(p.pending_since, r.requested_at) as pending_since
from benefits.employee as k
left join benefits.enrolment as e on e.employee_id = k.employee_id
left join benefits.pending as p on p.employee_id = k.employee_id
left join (
    select q.employee_id, min(q.requested_at) as requested_at
    from benefits.request as q
    group by q.employee_id
) as r on r.employee_id = k.employee_id
where k.gone_at is null or e.employee_id is not null;
comment on view benefits.employee_status is 'Every employee, in exactly one of the four states.';

create view benefits.sync_history as
select
    h.employee_id,
    h.at,
    h.event,
    benefits.field_names(h.fields) as fields,
    h.outcome,
    h.error_code,
    h.error,
    h.requested_by,
    h.latency,
    h.request_id
from benefits.history as h;
comment on view benefits.sync_history is 'What was done for whom; order by at desc for the newest first.';
