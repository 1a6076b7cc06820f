-- What HR people can do beyond Sync: levels, links, holds; and what they read: why, upcoming changes, history's months.

create table benefits.package (
    package_id text not null,
    name text not null,
    constraint package_pk primary key (package_id)
);
comment on table benefits.package is 'The platform''s packages as last fetched; kept by delivery.';

create table benefits.picklist (
    field text not null,
    value text not null,
    constraint picklist_pk primary key (field, value)
);
comment on table benefits.picklist is 'The values that the platform lists, as last fetched; kept by delivery.';

create view benefits.known_level as
select l.level, l.package_id, p.name as package_name, true as is_mapped
from benefits.level_package as l
left join benefits.package as p on p.package_id = l.package_id
union all
select p.name, p.package_id, p.name, false
from benefits.package as p
where not exists (select from benefits.level_package as l where l.package_id = p.package_id);
comment on view benefits.known_level is
'The levels that can be assigned: those that the site maps to a package, and packages that it maps nothing to, by name.';

-- Every writer of an outcome keeps benefits.failed in the same transaction: the WAL then has a failure before any save that
-- comes after it.
create function benefits.keep_failed() returns trigger
language plpgsql
as $$
begin
    if new.outcome = 'failed' and new.transferred_to is null then
        insert into benefits.failed (employee_id) values (new.employee_id) on conflict do nothing;
    else
        delete from benefits.failed as f where f.employee_id = new.employee_id;
    end if;
    return null;
end
$$;
create trigger keep_failed after update of outcome on benefits.enrolment
for each row when (old.outcome is distinct from new.outcome and (old.outcome = 'failed' or new.outcome = 'failed'))
execute function benefits.keep_failed();

-- Whether the platform's lists are others than those kept; they are kept.
create function benefits.keep_lists(package_ids text[], names text[], fields text[], values_ text[]) returns boolean
language plpgsql
as $$
declare
    gone bigint;
    come bigint;
begin
    with old as (
        delete from benefits.package as p
        where not exists (select from unnest(package_ids, names) as n (id, name) where n.id = p.package_id and n.name = p.name)
        returning 1
    ), older as (
        delete from benefits.picklist as l
        where not exists (select from unnest(fields, values_) as n (field, value) where n.field = l.field and n.value = l.value)
        returning 1
    )
    select (select count(*) from old) + (select count(*) from older) into gone;
    with new as (
        insert into benefits.package (package_id, name)
        select distinct on (n.id) n.id, n.name from unnest(package_ids, names) as n (id, name) order by n.id
        on conflict (package_id) do nothing returning 1
    ), newer as (
        insert into benefits.picklist (field, value)
        select distinct n.field, n.value from unnest(fields, values_) as n (field, value)
        on conflict do nothing returning 1
    )
    select (select count(*) from new) + (select count(*) from newer) into come;
    return gone + come > 0;
end
$$;

-- Levels ----------------------------------------------------------------------------------------------------------------

create function benefits.folded(value text) returns text
language sql immutable strict parallel safe
set search_path = pg_catalog, pg_temp
as $$ select lower(regexp_replace(value, '\s', '', 'g')) $$;

-- The level as HR stores it for what a person chose: a level, or a package by id or name. Null is a blank level.
create function benefits.find_level(wanted text) returns text
language plpgsql stable security definer
set search_path = pg_catalog, benefits, pg_temp
as $$
declare
    found text;
begin
    if coalesce(trim(wanted), '') = '' then
        return null;
    end if;
    select k.level into found
    from benefits.known_level as k
    left join benefits.package as p on p.package_id = k.package_id
    where benefits.folded(wanted) in (benefits.folded(k.level), benefits.folded(p.package_id), benefits.folded(p.name))
    order by k.level = wanted desc, benefits.folded(k.level) = benefits.folded(wanted) desc, k.level
    limit 1;
    if found is null then
        raise exception 'unknown level: %', wanted
            using errcode = 'invalid_parameter_value', hint = coalesce(
                'Known levels: ' || (select string_agg(k.level, ', ' order by k.level) from benefits.known_level as k) || '.',
                'No level is known yet: fill benefits.level_package, or start benefits-sync, which fetches the packages.'
            );
    end if;
    return found;
end
$$;
comment on function benefits.find_level(text) is 'The level to store for a level or package that a person chose; raises for an unknown one.';

-- Shows the people as In progress at once, and keeps who asked.
create function benefits.note_level(employee_ids text[]) returns text[]
language plpgsql security definer
set search_path = pg_catalog, benefits, pg_temp
as $$
declare
    wanted text[];
begin
    perform benefits.require_manager();
    wanted := benefits.known_employees(employee_ids);
    insert into benefits.request (employee_id, kind, requested_by)
    select e.employee_id, 'level', benefits.requester()
    from benefits.enrolment as e
    where e.employee_id = any (wanted) and e.transferred_to is null;
    return wanted;
end
$$;

-- Runs as the caller: the site's set_level decides with whose rights HR's tables are written (security definer, or not).
create function benefits.assign_level(employee_ids text[], level text) returns integer
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    stored text := benefits.find_level(level);
    wanted text[] := benefits.note_level(employee_ids);
    employee text;
begin
    if to_regprocedure('benefits.set_level(text, text)') is null then
        raise exception 'the site has not described how it stores a Benefits Level'
            using errcode = 'undefined_function', hint = 'A DBA writes the function benefits.set_level(employee_id text, level text).';
    end if;
    foreach employee in array wanted loop
        perform benefits.set_level(employee, stored);
    end loop;
    return cardinality(wanted);
end
$$;
comment on function benefits.assign_level(text[], text) is
'Assigns a Benefits Level, or a package by its name, to employees; the number of them. Blank takes the level away.';

-- Links -----------------------------------------------------------------------------------------------------------------

create function benefits.transfer_link(from_employee text, to_employee text) returns void
language plpgsql security definer
set search_path = pg_catalog, benefits, pg_temp
as $$
declare
    old benefits.enrolment;
    heir benefits.enrolment;
    ended boolean;
begin
    perform benefits.require_manager();
    perform benefits.known_employees(array[to_employee]);
    select * into old from benefits.enrolment as e where e.employee_id = from_employee;
    select * into heir from benefits.enrolment as e where e.employee_id = to_employee;
    if old.transferred_to is not null then
        raise exception 'the link of employee % was transferred to % already', from_employee, old.transferred_to
            using errcode = 'object_not_in_prerequisite_state';
    elsif old.linked is not true then
        raise exception 'employee % has no linked account to transfer', from_employee
            using errcode = 'object_not_in_prerequisite_state', hint = 'Nothing was requested. Sync the new record instead.';
    elsif from_employee = to_employee then
        raise exception 'the link of employee % is theirs already', from_employee using errcode = 'invalid_parameter_value';
    elsif heir.linked then
        raise exception 'employee % is linked to an account already', to_employee
            using errcode = 'object_not_in_prerequisite_state', hint = 'Nothing was requested.';
    elsif exists (
        select from benefits.request as r
        where r.kind = 'transfer' and (r.argument in (from_employee, to_employee) or r.employee_id in (from_employee, to_employee))
    ) then
        raise exception 'a transfer of this link is under way' using errcode = 'object_not_in_prerequisite_state';
    end if;
    -- A record that HR has deleted has ended, too.
    select coalesce(bool_and(r.leave_date is not null), true) into ended
    from benefits.read_records(array[from_employee]) as r;
    if not ended then
        raise exception 'employee % has no leave date, so the account is theirs', from_employee
            using errcode = 'object_not_in_prerequisite_state', hint = 'Enter the leave date of the old record first.';
    end if;
    insert into benefits.employee (employee_id) values (to_employee) on conflict do nothing;
    insert into benefits.request (employee_id, kind, argument, requested_by)
    values (to_employee, 'transfer', from_employee, benefits.requester());
end
$$;
comment on function benefits.transfer_link(text, text) is
'Re-employment: the account of an ended record goes over to a new one; the old record then sends nothing any more.';

create function benefits.relink(employee_id text, benefits_id text default null) returns void
language plpgsql security definer
set search_path = pg_catalog, benefits, pg_temp
as $$
declare
    held benefits.enrolment;
    other text;
begin
    perform benefits.require_manager();
    select * into held from benefits.enrolment as e where e.employee_id = relink.employee_id;
    if held.employee_id is null then
        raise exception 'employee % is not synced, so there is nothing to relink', relink.employee_id
            using errcode = 'no_data_found', hint = 'Use benefits.sync.';
    elsif held.transferred_to is not null then
        raise exception 'the link of employee % was transferred to %', relink.employee_id, held.transferred_to
            using errcode = 'object_not_in_prerequisite_state';
    end if;
    select e.employee_id into other
    from benefits.enrolment as e
    where e.platform_id = held.platform_id and e.benefits_id = relink.benefits_id and e.employee_id <> held.employee_id;
    if other is not null then
        raise exception 'account % is linked to employee %', relink.benefits_id, other
            using errcode = 'unique_violation', hint = 'Transfer the link instead: benefits.transfer_link.';
    end if;
    insert into benefits.request (employee_id, kind, argument, requested_by)
    values (relink.employee_id, 'relink', nullif(trim(relink.benefits_id), ''), benefits.requester());
end
$$;
comment on function benefits.relink(text, text) is
'After link-broken or conflict: matches the employee anew, by email, or takes the account that is named.';

-- What the reader has passed. Runs in the marker's transaction; returns who has to be delivered.
create function benefits.apply_links(requests bigint[], platform text, at timestamptz) returns setof text
language plpgsql
as $$
declare
    q record;
    old benefits.enrolment;
    used bigint;
    creating boolean;
begin
    for q in
        delete from benefits.request as r
        where r.request_id = any (requests) and r.kind in ('transfer', 'relink')
        returning r.*
    loop
        -- In the order of the ids, as every other statement of ours.
        perform from benefits.pending as p where p.employee_id in (q.employee_id, q.argument) order by p.employee_id for update;
        old := null;
        used := null;
        if q.kind = 'transfer' then
            select * into old from benefits.enrolment as e where e.employee_id = q.argument and e.linked for update;
            if old.employee_id is null or exists (
                select from benefits.enrolment as e where e.employee_id = q.employee_id and e.linked
            ) then
                insert into benefits.history (employee_id, event, outcome, error_code, error, requested_by)
                values (q.employee_id, 'rejected', 'failed', 'conflict',
                    'The transfer came too late: the link has changed meanwhile. Look at both records, and ask again.', q.requested_by);
                continue;
            end if;
            select greatest(old.version, p.intent_version) into used
            from (select 1) as one left join benefits.pending as p on p.employee_id = q.argument;
            delete from benefits.pending as p where p.employee_id = q.argument;
            update benefits.enrolment as e
            set transferred_to = q.employee_id, benefits_id = null, linked = false, version = used, outcome = 'successful',
                error_code = null, error = null, link_by = null, discarded = null
            where e.employee_id = q.argument;
            insert into benefits.history (employee_id, event, outcome, error, requested_by, latency)
            values (q.argument, 'transferred', 'successful', 'Ended by transfer to employee ' || q.employee_id || '.', q.requested_by,
                clock_timestamp() - q.requested_at);
        end if;
        select greatest(used, p.intent_version), coalesce(p.intent_kind = 'create', false) into used, creating
        from (select 1) as one left join benefits.pending as p on p.employee_id = q.employee_id;
        insert into benefits.enrolment as e
            (employee_id, platform_id, requested_by, benefits_id, version, link_by, transferred_from)
        values
            (q.employee_id, platform, q.requested_by, case q.kind when 'transfer' then old.benefits_id else q.argument end,
             coalesce(used, 0), q.kind, case q.kind when 'transfer' then q.argument end)
        on conflict (employee_id) do update
        set benefits_id = excluded.benefits_id, linked = false, version = greatest(e.version, excluded.version),
            acknowledged = null, unknown_fields = 0, link_by = excluded.link_by, discarded = null,
            transferred_from = coalesce(excluded.transferred_from, e.transferred_from), transferred_to = null,
            create_unresolved = e.create_unresolved or creating
        where not exists (
            select from benefits.enrolment as o
            where o.platform_id = platform and o.benefits_id = excluded.benefits_id and o.employee_id <> e.employee_id
        );
        if not found then
            insert into benefits.history (employee_id, event, outcome, error_code, error, requested_by)
            values (q.employee_id, 'rejected', 'failed', 'email-in-use', 'The account has been linked to another employee meanwhile.', q.requested_by);
            continue;
        end if;
        -- Whoever is sending for the employee has lost the claim: nothing of what comes back is recorded.
        insert into benefits.pending as p
            (employee_id, cause, in_full, requested_by, pending_since, changed_at, last_changed_at)
        values (q.employee_id, q.kind, true, q.requested_by, q.requested_at, at, at)
        on conflict (employee_id) do update
        set seq = p.seq + 1, in_full = true, requested_by = excluded.requested_by, attempts = 0, not_before = null, claim = null,
            intent_kind = null, intent_version = null, intent_fields = 0, intent_hash = null,
            last_changed_at = greatest(p.last_changed_at, excluded.last_changed_at);
        return next q.employee_id;
    end loop;
end
$$;
comment on function benefits.apply_links(bigint[], text, timestamptz) is 'Carries out transfers and relinks that the reader has passed.';

-- Mass changes ----------------------------------------------------------------------------------------------------------
-- A change "ends" a person when they get a leave date, lose a mandatory field, or disappear. Endings are counted in a sliding
-- window kept here, so that instances agree and a restart does not forget. A commit that marks more people than the limit
-- is a mass change: all of it is judged before any of its endings may leave.

create table benefits.mass_change (
    batch bigint generated always as identity,
    complete boolean not null default true,
    noted_at timestamptz not null default clock_timestamp(),
    transaction_user text,
    is_comparison boolean not null default false,
    constraint mass_change_pk primary key (batch)
);
comment on column benefits.mass_change.transaction_user is
'Whose transaction it was, where it ran long enough to be seen: the WAL does not say.';
comment on table benefits.mass_change is
'Commits that marked many: their pending rows carry the batch until judged. Incomplete while rows are still being marked.';

create table benefits.ending (
    employee_id text not null,
    at timestamptz not null,
    admitted boolean not null,
    constraint ending_pk primary key (employee_id)
);
create index ending_at_ix on benefits.ending (at);
comment on table benefits.ending is 'Who was ended, or was to be, within the guard''s window.';

create table benefits.mass_hold (
    hold_id bigint generated always as identity,
    reason text not null,
    opened_at timestamptz not null default clock_timestamp(),
    added_at timestamptz not null default clock_timestamp(),
    transaction_user text,
    state text not null default 'open',
    closed_at timestamptz,
    closed_by text,
    constraint mass_hold_pk primary key (hold_id),
    constraint mass_hold_state_ck check (state in ('open', 'released', 'discarded'))
);
comment on table benefits.mass_hold is 'Mass changes that wait, or waited, for a person.';

create table benefits.hold_member (
    hold_id bigint not null,
    employee_id text not null,
    kind text not null,
    constraint hold_member_pk primary key (hold_id, employee_id),
    constraint hold_member_hold_fk foreign key (hold_id) references benefits.mass_hold (hold_id),
    constraint hold_member_kind_ck check (kind in ('leave-date', 'required', 'record-gone'))
);
comment on table benefits.hold_member is 'Whose change is held, and what it would do.';

create view benefits.hold as
select
    h.hold_id,
    h.reason,
    array(
        select m.employee_id
        from benefits.hold_member as m
        where m.hold_id = h.hold_id and (
            h.state <> 'open'
            or exists (select from benefits.pending as p where p.employee_id = m.employee_id and p.hold_id = h.hold_id)
        )
        order by m.employee_id
    ) as employee_ids,
    h.opened_at,
    h.transaction_user,
    case
        when h.state = 'open' and not exists (select from benefits.pending as p where p.hold_id = h.hold_id) then 'resolved'
        else h.state
    end as state
from benefits.mass_hold as h;
comment on view benefits.hold is
'Mass changes that wait for a person (open) or waited (released, discarded; resolved: HR has put it right by itself).';

-- Holds employees whose pending rows carry an ending, or lets them go. Needs the guard's lock.
create function benefits.count_endings(ids text[], share float8, least_ integer, span interval, who text) returns boolean
language plpgsql
as $$
declare
    counted bigint;
    synced bigint;
    most bigint := least_;
    into_hold bigint;
    why_ text;
begin
    if cardinality(ids) = 0 then
        return false;
    end if;
    delete from benefits.ending as n where n.at < clock_timestamp() - span;
    select count(*) + cardinality(ids) into counted from benefits.ending as n where not n.employee_id = any (ids);
    if counted > least_ then
        select count(*) into synced from benefits.enrolment as e where e.linked;
        most := greatest(least_, floor(share * synced));
    end if;
    insert into benefits.ending as n (employee_id, at, admitted)
    select i, clock_timestamp(), counted <= most from unnest(ids) as i
    on conflict (employee_id) do update set at = excluded.at, admitted = excluded.admitted;
    if counted <= most then
        return false;
    end if;
    select h.hold_id into into_hold
    from benefits.mass_hold as h where h.state = 'open' and h.added_at > clock_timestamp() - span
    order by h.hold_id desc limit 1;
    if into_hold is null then
        insert into benefits.mass_hold (reason, transaction_user) values ('', who) returning hold_id into into_hold;
    end if;
    insert into benefits.hold_member (hold_id, employee_id, kind)
    select into_hold, p.employee_id, p.ending_kind from benefits.pending as p where p.employee_id = any (ids)
    on conflict do nothing;
    select format(
        '%s employees (%s) within %s; the limit is %s', count(*),
        concat_ws(
            ', ',
            nullif(count(*) filter (where m.kind = 'leave-date'), 0) || ' would get a leave date',
            nullif(count(*) filter (where m.kind = 'required'), 0) || ' would lose a mandatory field',
            nullif(count(*) filter (where m.kind = 'record-gone'), 0) || ' would disappear'
        ),
        span, most
    )
    into why_
    from benefits.hold_member as m where m.hold_id = into_hold;
    update benefits.mass_hold as h
    set reason = why_, added_at = clock_timestamp(), transaction_user = coalesce(h.transaction_user, who)
    where h.hold_id = into_hold;
    update benefits.pending as p
    set hold_id = into_hold, hold_seq = p.seq, hold_ending = p.ending, batch = null where p.employee_id = any (ids);
    insert into benefits.history (employee_id, event, fields, outcome, error_code, error, requested_by)
    select p.employee_id, 'held', case p.ending_kind when 'leave-date' then 1 << 19 else 0 end, 'waiting', 'mass-change',
        format('Held by the mass-change guard (hold %s): a person releases or discards it.', into_hold), p.requested_by
    from benefits.pending as p where p.employee_id = any (ids) order by p.employee_id;
    return true;
end
$$;

-- Endings that delivery is about to send, one by one: 'go', 'held', or 'wait' for the rest of their mass change.
create function benefits.admit_endings(
    ids text[], seqs bigint[], marks bytea[], kinds text[], share float8, least_ integer, span interval
) returns table (employee_id text, verdict text)
language plpgsql
as $$
#variable_conflict use_column
declare
    counted text[];
    held boolean;
begin
    perform pg_advisory_xact_lock(hashtextextended('benefits-sync guard', 0));
    perform from benefits.pending as p where p.employee_id = any (ids) order by p.employee_id for update;
    -- Held already, and still an ending after another change: stays where it is.
    update benefits.pending as p
    set ending = i.mark, ending_kind = i.kind, hold_seq = case when h.hold_id is null then p.hold_seq else i.seq end,
        hold_ending = case when h.hold_id is null then p.hold_ending else i.mark end
    from unnest(ids, seqs, marks, kinds) as i (employee_id, seq, mark, kind)
    left join benefits.pending as o on o.employee_id = i.employee_id
    left join benefits.mass_hold as h on h.hold_id = o.hold_id and h.state = 'open'
    where p.employee_id = i.employee_id and p.batch is null and p.seq = i.seq;
    counted := array(
        select p.employee_id
        from benefits.pending as p
        inner join unnest(ids, seqs) as i (employee_id, seq) on i.employee_id = p.employee_id and i.seq = p.seq
        where p.batch is null and p.hold_id is null and not p.hold_passed
            and not exists (select from benefits.ending as n where n.employee_id = p.employee_id and n.admitted)
        order by p.employee_id
    );
    held := benefits.count_endings(counted, share, least_, span, null);
    return query
    select
        i.employee_id,
        case
            when p.employee_id is null or p.batch is not null or p.seq <> i.seq then 'wait'
            when p.hold_id is not null then 'held'
            else 'go'
        end
    from unnest(ids, seqs) as i (employee_id, seq)
    left join benefits.pending as p on p.employee_id = i.employee_id;
end
$$;
comment on function benefits.admit_endings(text[], bigint[], bytea[], text[], float8, integer, interval) is
'Whether endings may be sent now: counted against the guard''s limit, under one lock for all instances.';

-- The end of a mass change''s judging: its endings are held together or let go together. False while some are not judged.
create function benefits.settle_batch(which bigint, share float8, least_ integer, span interval) returns boolean
language plpgsql
as $$
declare
    m benefits.mass_change;
    ids text[];
begin
    perform pg_advisory_xact_lock(hashtextextended('benefits-sync guard', 0));
    select * into m from benefits.mass_change as c where c.batch = which;
    if m.batch is null then
        return true;
    elsif not m.complete or exists (select from benefits.pending as p where p.batch = which and p.ending is null) then
        return false;
    end if;
    perform from benefits.pending as p where p.batch = which order by p.employee_id for update;
    ids := array(
        select p.employee_id from benefits.pending as p
        where p.batch = which and not p.hold_passed and p.hold_id is null
            and not exists (select from benefits.ending as n where n.employee_id = p.employee_id and n.admitted)
        order by p.employee_id
    );
    perform benefits.count_endings(ids, share, least_, span, m.transaction_user);
    -- Those who are in a hold already stay in it, with what they are now.
    update benefits.pending as p
    set batch = null, hold_seq = case when p.hold_id is null then null else p.seq end,
        hold_ending = case when p.hold_id is null then null else p.ending end
    where p.batch = which;
    delete from benefits.mass_change as c where c.batch = which;
    return true;
end
$$;
comment on function benefits.settle_batch(bigint, float8, integer, interval) is 'Holds or lets go the endings of a judged mass change.';

create function benefits.ask_hold(hold_id bigint, kind text) returns void
language plpgsql
as $$
declare
    state_ text := (select h.state from benefits.hold as h where h.hold_id = ask_hold.hold_id);
begin
    perform benefits.require_manager();
    if state_ is null then
        raise exception 'there is no hold %', hold_id
            using errcode = 'no_data_found', hint = 'select * from benefits.hold where state = ''open'';';
    elsif state_ <> 'open' then
        raise exception 'hold % is not open any more: it is %', hold_id, state_ using errcode = 'object_not_in_prerequisite_state';
    end if;
    insert into benefits.request (employee_id, kind, argument, requested_by)
    values ('', ask_hold.kind, hold_id::text, benefits.requester());
end
$$;

create function benefits.release(hold_id bigint) returns void
language plpgsql security definer
set search_path = pg_catalog, benefits, pg_temp
as $$ begin perform benefits.ask_hold(release.hold_id, 'release'); end $$;
comment on function benefits.release(bigint) is 'Lets a held mass change go: it is sent.';

create function benefits.discard(hold_id bigint) returns void
language plpgsql security definer
set search_path = pg_catalog, benefits, pg_temp
as $$ begin perform benefits.ask_hold(discard.hold_id, 'discard'); end $$;
comment on function benefits.discard(bigint) is 'Drops a held mass change: nothing of it is sent until HR changes the records again.';

-- What the reader has passed. Runs in the marker's transaction; returns who is due.
create function benefits.apply_holds(requests bigint[]) returns setof text
language plpgsql
as $$
declare
    q record;
    ids text[];
begin
    for q in
        delete from benefits.request as r
        where r.request_id = any (requests) and r.kind in ('release', 'discard')
        returning r.request_id, r.kind, r.argument::bigint as hold_id, r.requested_by
    loop
        update benefits.mass_hold as h
        set state = case q.kind when 'release' then 'released' else 'discarded' end, closed_at = clock_timestamp(), closed_by = q.requested_by
        where h.hold_id = q.hold_id and h.state = 'open';
        continue when not found;
        ids := array(select p.employee_id from benefits.pending as p where p.hold_id = q.hold_id order by p.employee_id for update);
        delete from benefits.ending as n where n.employee_id = any (ids);
        insert into benefits.history (employee_id, event, outcome, error_code, error, requested_by)
        select i, case q.kind when 'release' then 'released' else 'discarded' end,
            case q.kind when 'release' then 'waiting' else 'discarded' end, 'mass-change', format('Hold %s.', q.hold_id), q.requested_by
        from unnest(ids) as i;
        if q.kind = 'discard' then
            update benefits.enrolment as e
            set discarded = p.hold_ending, version = greatest(e.version, p.intent_version),
                unknown_fields = e.unknown_fields | p.intent_fields
            from benefits.pending as p
            where p.employee_id = any (ids) and e.employee_id = p.employee_id;
            delete from benefits.pending as p where p.employee_id = any (ids) and p.seq = p.hold_seq and p.claim is null;
        end if;
        -- Counted as a mark: whoever has read the employee before this reads again.
        update benefits.pending as p
        set seq = p.seq + 1, hold_id = null, hold_seq = null, hold_ending = null, hold_passed = q.kind = 'release', not_before = null, progressed_at = clock_timestamp()
        where p.employee_id = any (ids);
        return query select p.employee_id from benefits.pending as p where p.employee_id = any (ids);
    end loop;
end
$$;
comment on function benefits.apply_holds(bigint[]) is 'Carries out releases and discards that the reader has passed.';

-- Why ---------------------------------------------------------------------------------------------------------------------

create function benefits.moment(at timestamptz) returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$ select to_char(at at time zone s.time_zone, 'YYYY-MM-DD HH24:MI:SS') from benefits.site as s $$;

-- Why nothing is sent to anybody at the moment; null where delivery runs.
create function benefits.why_stopped() returns text
language sql stable
set search_path = pg_catalog, benefits, pg_temp
as $$
    select case
        when s.paused_reason is not null then format('delivery is paused for the site (%s); a manager resumes it', s.paused_reason)
        when s.halted_code is not null then 'delivery is halted for the site: ' || coalesce(s.halted_reason, case s.halted_code
            when 'credentials' then 'the platform refuses our credentials; operators correct the token'
            when 'platform-suspended' then 'the platform is suspended; it goes on when Benefits lifts that'
            when 'forbidden' then 'the platform does not allow this to our credentials; operators ask Benefits'
            when 'wrong-platform' then 'there is no such platform at Benefits; operators correct platform_id or base_url'
            when 'record-query' then 'the record query does not work any more; a DBA corrects the site''s description'
            when 'another-writer' then 'somebody else writes to the same accounts; operators find out who, and resume'
            else s.halted_code end)
        when s.doubt = 'platform' then 'the database was restored or failed over, and a comparison with the platform comes first'
        when not exists (
            select from pg_locks as l
            where l.locktype = 'advisory' and l.classid = 6452089 and l.objsubid = 2
                and l.database = (select d.oid from pg_database as d where d.datname = current_database())
        ) then 'benefits-sync is not running; operators start it'
    end
    from benefits.site as s
$$;

create function benefits.why_pending(p benefits.pending) returns text
language plpgsql stable
set search_path = pg_catalog, benefits, pg_temp
as $$
declare
    since text := benefits.moment(p.pending_since);
    stopped text := benefits.why_stopped();
    h benefits.mass_hold;
begin
    if p.hold_id is not null and p.hold_seq = p.seq then
        select * into h from benefits.mass_hold as m where m.hold_id = p.hold_id;
        return format(
            'In progress: held since %s by the mass-change guard (hold %s: %s); a manager decides with benefits.release(%2$s) or benefits.discard(%2$s).',
            benefits.moment(h.opened_at), h.hold_id, h.reason
        );
    elsif p.batch is not null and p.ending is not null then
        return format('In progress since %s: part of a mass change that is being judged as a whole before it is sent.', since);
    elsif stopped is not null then
        return format('In progress since %s: %s.', since, stopped);
    elsif p.attempts > 0 then
        return format(
            'In progress: the platform does not take the change; retrying since %s (attempt %s%s).', since, p.attempts + 1,
            coalesce(', the next at ' || benefits.moment(p.not_before), '')
        );
    elsif p.claim is not null then
        return format('In progress since %s: it is being sent now.', since);
    elsif p.not_before > clock_timestamp() then
        return format('In progress since %s: it waits until %s, because further edits may follow.', since, benefits.moment(p.not_before));
    end if;
    return format(
        'In progress since %s: waiting for its turn (%s).', since,
        case p.cause
            when 'sync' then 'Sync' when 'starter' then 'a new starter' when 'lookup' then 'a lookup was changed'
            when 'rules' then 'a translation, level or the description was changed' when 'reconcile' then 'found by a comparison'
            when 'time' then 'a dated row became current' when 'transfer' then 'a transfer' when 'relink' then 'a relink'
            else 'a change in HR'
        end
    );
end
$$;

create function benefits.why(employee_id text) returns text
language plpgsql stable security definer
set search_path = pg_catalog, benefits, pg_temp
as $$
declare
    k benefits.employee;
    e benefits.enrolment;
    p benefits.pending;
    q benefits.request;
    h benefits.history;
    stopped text;
begin
    select * into k from benefits.employee as x where x.employee_id = why.employee_id;
    select * into e from benefits.enrolment as x where x.employee_id = why.employee_id;
    select * into p from benefits.pending as x where x.employee_id = why.employee_id;
    select * into q from benefits.request as x where x.employee_id = why.employee_id order by x.request_id desc limit 1;
    if p.employee_id is not null then
        return benefits.why_pending(p);
    elsif q.employee_id is not null then
        stopped := benefits.why_stopped();
        return format(
            'In progress: %s asked for %s at %s; %s.', q.requested_by,
            case q.kind when 'sync' then 'Sync' when 'level' then 'a Benefits Level' when 'transfer' then 'a transfer of the link' else 'a relink' end,
            benefits.moment(q.requested_at), coalesce(stopped, 'the reader has not come to it yet')
        );
    elsif e.transferred_to is not null then
        return format('Successful: ended by transfer; the account belongs to employee %s now, and this record sends nothing any more.', e.transferred_to);
    elsif e.outcome = 'failed' then
        select * into h from benefits.history as x where x.employee_id = why.employee_id order by x.at desc limit 1;
        return format(
            'Failed%s (%s): %s', coalesce(' since ' || benefits.moment(h.at), ''), e.error_code, e.error
        );
    elsif e.outcome = 'successful' then
        if e.discarded is not null then
            select * into h from benefits.history as x
            where x.employee_id = why.employee_id and x.event = 'discarded' order by x.at desc limit 1;
            return format(
                'Successful, but not in step with HR: a mass change was discarded%s%s; nothing of it is sent until HR changes the record.',
                coalesce(' by ' || h.requested_by, ''), coalesce(' at ' || benefits.moment(h.at), '')
            );
        end if;
        return format('Successful: Benefits is in step with HR, last sent at %s.', benefits.moment(e.last_synced_at));
    elsif e.employee_id is not null then
        return format('In progress since %s: enrolled and not sent yet.', benefits.moment(e.enrolled_at));
    elsif k.employee_id is not null and k.gone_at is null then
        return case
            when k.starter_baseline then 'Not syncing: never sent to Benefits; the tick for new starters was there before the integration was set up, so use Sync.'
            else 'Not syncing: never sent to Benefits; use Sync, or set the tick for new starters in HR.'
        end;
    elsif k.employee_id is not null then
        return format('Not syncing: HR has deleted the record (%s), and it was never sent to Benefits.', benefits.moment(k.gone_at));
    end if;
    return format('Unknown: HR has no employee %s, or hired them a moment ago and the reader has not come to it yet.', quote_literal(employee_id));
end
$$;
comment on function benefits.why(text) is 'Why is this person (not) in step? One sentence.';

-- Time --------------------------------------------------------------------------------------------------------------------

-- Generates what finds effective-dated rows: whose rows begin or end on given days, and which are still to come.
-- A date can be the first day of a row or the last day of one, so the day after counts as well.
create function benefits.generate_becoming() returns void
language plpgsql
as $$
declare
    parts text;
begin
    select string_agg(
        format(
            'select %s as employee_id, d.on_date from %I.%I as t cross join lateral (select x::date as on_date from unnest(%s) as x) as d '
            'where d.on_date between $1 and $2',
            case when s.employee_key is null then 'a.employee_id' else format('t.%I::text', s.employee_key) end,
            s.table_schema, s.table_name,
            case
                when a.typtype = 'r' and format_type(a.atttypid, null) = 'tstzrange' then format(
                    'array[lower(t.%1$I) at time zone z.zone, upper(t.%1$I) at time zone z.zone]', s.effective_from)
                when a.typtype = 'r' then format('array[lower(t.%1$I)::timestamp, upper(t.%1$I)::timestamp]', s.effective_from)
                when format_type(a.atttypid, null) like 'timestamp%with time zone' then format(
                    'array[t.%1$I at time zone z.zone, t.%1$I at time zone z.zone + interval ''1 day'']', s.effective_from)
                else format('array[t.%1$I::timestamp, t.%1$I::timestamp + interval ''1 day'']', s.effective_from)
            end
        ),
        E'\nunion ' order by s.source_id
    )
    into parts
    from benefits.source as s
    inner join lateral (
        select c.atttypid, y.typtype
        from pg_attribute as c inner join pg_type as y on y.oid = c.atttypid
        where c.attrelid = s.table_oid and c.attname = s.effective_from
    ) as a on true
    where s.effective_from is not null and s.employee_key is not null;
    parts := replace(parts, 'as t cross join', 'as t cross join (select time_zone as zone from benefits.site) as z cross join');
    execute format(
        'create or replace function benefits.read_becoming(first date, last date) returns table (employee_id text, on_date date) '
        'language plpgsql stable security definer %s as %L',
        benefits.definer_settings(),
        format(
            E'#variable_conflict use_column\nbegin return query %s; end',
            coalesce(parts, 'select null::text, null::date where false')
        )
    );
    execute 'alter function benefits.read_becoming(date, date) owner to benefits_owner';
    execute 'revoke all on function benefits.read_becoming(date, date) from public';
    execute 'grant execute on function benefits.read_becoming(date, date) to benefits_service';
    -- A mistake should show now.
    execute 'select from benefits.read_becoming(null, null)';
end
$$;

create function benefits.until_midnight(at timestamptz) returns interval
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select (((at at time zone s.time_zone)::date + 1)::timestamp at time zone s.time_zone) - at from benefits.site as s
$$;
comment on function benefits.until_midnight(timestamptz) is 'How long it is to the site''s next midnight: 23 to 25 hours a day.';

-- The fields of a record that will differ on a day from those of the day before, for synced employees.
create function benefits.upcoming_changes(employee_ids text[] default null)
returns table (employee_id text, on_date date, fields text[])
language plpgsql security definer
set search_path = pg_catalog, benefits, pg_temp
as $$
#variable_conflict use_column
declare
    before_ text := coalesce(current_setting('benefits.as_of', true), '');
    day record;
begin
    if to_regprocedure('benefits.read_becoming(date, date)') is null or to_regprocedure('benefits.read_records(text[])') is null then
        return;
    end if;
    for day in
        select b.on_date, array_agg(distinct b.employee_id) as ids
        from benefits.read_becoming(benefits.today() + 1, 'infinity') as b
        inner join benefits.enrolment as e on e.employee_id = b.employee_id and e.transferred_to is null
        where $1 is null or b.employee_id = any ($1)
        group by b.on_date
        order by b.on_date
    loop
        return query
        with then_ as materialized (
            select r.employee_id, benefits.record_as_of(r.employee_id, day.on_date - 1) as was,
                benefits.record_as_of(r.employee_id, day.on_date) as becomes
            from unnest(day.ids) as r (employee_id)
        )
        select t.employee_id, day.on_date, d.fields
        from then_ as t
        cross join lateral (
            select array_agg(distinct benefits.property_name(c.name) order by benefits.property_name(c.name)) as fields
            from benefits.record_columns() as c (name)
            where t.was ->> c.name is distinct from t.becomes ->> c.name
        ) as d
        where d.fields is not null
        order by t.employee_id;
    end loop;
    perform set_config('benefits.as_of', before_, true);
end
$$;
comment on function benefits.upcoming_changes(text[]) is
'What will send itself, and when: fields of the record that change on a later day without any save.';

-- The record as it will be on a day, if nothing else changes.
create function benefits.record_as_of(employee text, day date) returns jsonb
language plpgsql volatile
as $$
declare
    record_ jsonb;
begin
    perform set_config('benefits.as_of', day::text, true);
    select to_jsonb(r) into record_ from benefits.read_records(array[employee]) as r limit 1;
    return record_;
end
$$;

create function benefits.property_name(record_column text) returns text
language sql immutable strict
set search_path = pg_catalog, pg_temp
as $$
    select case
        when record_column like '%\_email' then 'email'
        when record_column = 'benefits_level' then 'packageId'
        else (
            select string_agg(case when i = 1 then w else upper(left(w, 1)) || substr(w, 2) end, '' order by i)
            from unnest(string_to_array(record_column, '_')) with ordinality as x (w, i)
        )
    end
$$;

create view benefits.upcoming_change as
select u.employee_id, u.on_date, u.fields from benefits.upcoming_changes() as u;
comment on view benefits.upcoming_change is
'What will send itself, and when: dated rows of synced employees that become current on a later day.';

-- History ---------------------------------------------------------------------------------------------------------------

-- A partition for this month and the next; months that are older than asked for are dropped.
create function benefits.keep_history(months integer) returns integer
language plpgsql security definer
set search_path = pg_catalog, benefits, pg_temp
as $$
declare
    first_day date := date_trunc('month', now() at time zone 'UTC');
    begins date;
    part name;
    old record;
    dropped integer := 0;
begin
    foreach begins in array array[first_day, (first_day + interval '1 month')::date] loop
        part := 'history_' || to_char(begins, 'YYYY_MM');
        continue when to_regclass('benefits.' || part) is not null;
        execute format('create table benefits.%I (like benefits.history including defaults including identity including constraints)', part);
        execute format('alter table benefits.%I alter column history_id drop identity if exists', part);
        -- Lines that came while there was no such partition.
        execute format(
            'with moved as (delete from benefits.history_default where at >= %1$L and at < %2$L returning *) '
            'insert into benefits.%3$I select * from moved',
            begins || ' 00:00:00+00', (begins + interval '1 month')::date || ' 00:00:00+00', part
        );
        execute format(
            'alter table benefits.history attach partition benefits.%I for values from (%L) to (%L)',
            part, begins || ' 00:00:00+00', (begins + interval '1 month')::date || ' 00:00:00+00'
        );
    end loop;
    for old in
        select c.relname from pg_inherits as i inner join pg_class as c on c.oid = i.inhrelid
        where i.inhparent = 'benefits.history'::regclass and c.relname ~ '^history_\d{4}_\d{2}$'
            and to_date(substr(c.relname, 9), 'YYYY_MM') < first_day - make_interval(months => months)
    loop
        execute format('drop table benefits.%I', old.relname);
        dropped := dropped + 1;
    end loop;
    delete from benefits.history_default where at < (first_day - make_interval(months => months))::timestamp at time zone 'UTC';
    return dropped;
end
$$;
comment on function benefits.keep_history(integer) is
'Makes the history''s partitions of this month and the next, and drops those older than so many months.';
select benefits.keep_history(1200);

create function benefits.forget(employee_id text) returns void
language plpgsql security definer
set search_path = pg_catalog, benefits, pg_temp
as $$
begin
    perform benefits.require_manager();
    delete from benefits.pending as p where p.employee_id = forget.employee_id;
    delete from benefits.request as r where r.employee_id = forget.employee_id or (r.kind = 'transfer' and r.argument = forget.employee_id);
    delete from benefits.history as h where h.employee_id = forget.employee_id;
    delete from benefits.failed as f where f.employee_id = forget.employee_id;
    delete from benefits.enrolment as e where e.employee_id = forget.employee_id;
    update benefits.enrolment as e set transferred_from = null where e.transferred_from = forget.employee_id;
    delete from benefits.row_owner as w where w.employee_id = forget.employee_id;
    delete from benefits.ending as n where n.employee_id = forget.employee_id;
    delete from benefits.hold_member as m where m.employee_id = forget.employee_id;
    -- Somebody whom HR still has stays on the list of employees, and is no starter.
    delete from benefits.employee as k where k.employee_id = forget.employee_id and k.gone_at is not null;
    update benefits.employee as k set starter_baseline = true where k.employee_id = forget.employee_id;
end
$$;
comment on function benefits.forget(text) is
'Erases a person''s traces from the ledger: link, state, history. What Benefits holds, and HR''s own rows, stay.';

-- Who may do what ---------------------------------------------------------------------------------------------------------

do $$
declare
    thing record;
begin
    for thing in
        select c.oid::regclass as name, c.relkind from pg_class as c
        where c.relnamespace = 'benefits'::regnamespace and c.relkind in ('r', 'p', 'v')
            and c.relowner <> 'benefits_owner'::regrole
    loop
        execute format('alter %s %s owner to benefits_owner', case thing.relkind when 'v' then 'view' else 'table' end, thing.name);
    end loop;
    for thing in
        select p.oid::regprocedure as name from pg_proc as p
        where p.pronamespace = 'benefits'::regnamespace and p.prosecdef
    loop
        execute format('alter function %s owner to benefits_owner', thing.name);
    end loop;
end
$$;
revoke all on all functions in schema benefits from public;
grant select, insert, update, delete on all tables in schema benefits to benefits_service;
grant usage on all sequences in schema benefits to benefits_service;
-- Append-only, for the service as for everybody.
revoke update, delete, truncate on benefits.history from benefits_service;
grant execute on function
    benefits.until_midnight(timestamptz), benefits.keep_lists(text[], text[], text[], text[]), benefits.apply_links(bigint[], text, timestamptz), benefits.apply_holds(bigint[]), benefits.keep_history(integer),
    benefits.admit_endings(text[], bigint[], bytea[], text[], float8, integer, interval),
    benefits.count_endings(text[], float8, integer, interval, text), benefits.settle_batch(bigint, float8, integer, interval)
to benefits_service;
grant execute on function benefits.why(text), benefits.upcoming_changes(text[])
to benefits_viewer, benefits_manager, benefits_service;
grant execute on function
    benefits.assign_level(text[], text), benefits.find_level(text), benefits.note_level(text[]),
    benefits.transfer_link(text, text), benefits.relink(text, text), benefits.release(bigint), benefits.discard(bigint),
    benefits.forget(text), benefits.require_manager()
to benefits_manager, benefits_service;
-- Definer functions run as the owner.
grant execute on all functions in schema benefits to benefits_owner;
grant select on benefits.employee_status, benefits.sync_history, benefits.hold, benefits.upcoming_change, benefits.known_level
to benefits_viewer, benefits_manager;
