-- People at their number: states that are filtered and counted fast, names to search by, rows that become current at an instant.

-- States ----------------------------------------------------------------------------------------------------------------
-- "Never enrolled" has no row of its own to be found by, so that a page of Not syncing had to pass by everybody else. A flag
-- and an index over those few (or many) are kept by triggers, for every writer there is.

alter table benefits.employee
add column enrolled boolean not null default false;
comment on column benefits.employee.enrolled is 'Whether benefits.enrolment has the employee; kept by triggers.';
update benefits.employee as k
set enrolled = true
where exists (select from benefits.enrolment as e where e.employee_id = k.employee_id);
create index employee_not_enrolled_ix on benefits.employee (employee_id) where not enrolled and gone_at is null;
create index enrolment_unsent_ix on benefits.enrolment (employee_id) where outcome is null;

create function benefits.keep_enrolled() returns trigger
language plpgsql
as $$
begin
    update benefits.employee as k
    set enrolled = (tg_op = 'INSERT')
    from changed as c
    where k.employee_id = c.employee_id and k.enrolled <> (tg_op = 'INSERT');
    return null;
end
$$;
create trigger keep_enrolled after insert on benefits.enrolment
referencing new table as changed for each statement execute function benefits.keep_enrolled();
create trigger keep_not_enrolled after delete on benefits.enrolment
referencing old table as changed for each statement execute function benefits.keep_enrolled();

-- A table a branch, with nothing but constants beside its columns: PostgreSQL flattens such a union. A filter by state then
-- leaves branches out of the plan, each comes in the order of its key, and a join from an HR table finds its row by index in
-- each. The conditions are one CASE over the branch for that reason: for each branch one arm of it is left. No two arms are
-- true of one employee.
create or replace view benefits.employee_status as
select
    x.employee_id,
    case x.branch
        when 'never' then 'not_syncing' when 'failed' then 'failed' when 'successful' then 'successful' else 'in_progress'
    end as state,
    case
        when x.branch in ('failed', 'successful', 'unsent') then case when x.linked then x.benefits_id end
        when x.branch in ('pending', 'requested')
            then (select e.benefits_id from benefits.enrolment as e where e.employee_id = x.employee_id and e.linked)
    end as benefits_id,
    case
        when x.branch in ('failed', 'successful', 'unsent') then x.error_code
        when x.branch in ('pending', 'requested')
            then (select e.error_code from benefits.enrolment as e where e.employee_id = x.employee_id)
    end as last_error_code,
    case
        when x.branch in ('failed', 'successful', 'unsent') then x.error
        when x.branch in ('pending', 'requested')
            then (select e.error from benefits.enrolment as e where e.employee_id = x.employee_id)
    end as last_error,
    case
        when x.branch in ('failed', 'successful', 'unsent') then x.last_synced_at
        when x.branch in ('pending', 'requested')
            then (select e.last_synced_at from benefits.enrolment as e where e.employee_id = x.employee_id)
    end as last_synced_at,
    x.since as pending_since
from (
    select
        p.employee_id, 'pending'::text as branch, null::boolean as linked, null::text as benefits_id, null::text as outcome,
        null::text as error_code, null::text as error, null::timestamptz as last_synced_at, p.pending_since as since,
        null::bigint as request_id, null::boolean as is_listed
    from benefits.pending as p
    union all
    select
        q.employee_id, 'requested'::text, null::boolean, null::text, null::text, null::text, null::text, null::timestamptz,
        q.requested_at, q.request_id, null::boolean
    from benefits.request as q
    union all
    select
        e.employee_id, 'unsent'::text, e.linked, e.benefits_id, e.outcome, e.error_code, e.error, e.last_synced_at,
        null::timestamptz, null::bigint, null::boolean
    from benefits.enrolment as e
    union all
    select
        e.employee_id, 'failed'::text, e.linked, e.benefits_id, e.outcome, e.error_code, e.error, e.last_synced_at,
        null::timestamptz, null::bigint, null::boolean
    from benefits.enrolment as e
    union all
    select
        e.employee_id, 'successful'::text, e.linked, e.benefits_id, e.outcome, e.error_code, e.error, e.last_synced_at,
        null::timestamptz, null::bigint, null::boolean
    from benefits.enrolment as e
    union all
    select
        k.employee_id, 'never'::text, null::boolean, null::text, null::text, null::text, null::text, null::timestamptz,
        k.gone_at, null::bigint, k.enrolled
    from benefits.employee as k
) as x
where
    case x.branch
        when 'pending' then true
        when 'requested' then
            -- The first of theirs; a release or discard is nobody's.
            not exists (
                select from benefits.request as o where o.employee_id = x.employee_id and o.request_id < x.request_id
            )
            and exists (
                select from benefits.employee as k
                where k.employee_id = x.employee_id and (k.gone_at is null or k.enrolled)
            )
        when 'unsent' then x.outcome is null
        when 'failed' then x.outcome = 'failed'
        when 'successful' then x.outcome = 'successful'
        when 'never' then not x.is_listed and x.since is null
    end
    -- In progress comes before all others.
    and not exists (
        select from benefits.pending as p where p.employee_id = x.employee_id and x.branch <> 'pending'
    )
    and not exists (
        select from benefits.request as q where q.employee_id = x.employee_id and x.branch not in ('pending', 'requested')
    );
comment on view benefits.employee_status is 'Every employee, in exactly one of the four states.';

-- Names ------------------------------------------------------------------------------------------------------------------
-- The page shows and finds people by name. Names are HR's: they are read when they are asked for, and nothing of them is kept.

alter table benefits.site
add column search_query text,
add column search_key_type text,
add column search_columns text[] not null default '{}';
comment on column benefits.site.search_query is
'How people are found by name, as described by the site; null where that is not described.';

drop function benefits.query_columns(text, regprocedure[]);
-- The columns that a query reads, through a temporary view that is rolled back. "what" is the query's name in messages.
create function benefits.query_columns(
    query text, declared regprocedure[], what text default 'record query',
    out columns jsonb, out outputs jsonb, out relations jsonb
)
language plpgsql
as $$
declare
    seen oid[];
    hidden text;
    probe oid;
begin
    begin
        execute format('create temporary view benefits_probe as %s', query);
        probe := to_regclass('pg_temp.benefits_probe');
        select jsonb_agg(jsonb_build_object('name', a.attname, 'type', format_type(a.atttypid, -1)) order by a.attnum)
        into outputs
        from pg_attribute as a
        where a.attrelid = probe and a.attnum > 0 and not a.attisdropped;

        -- Views inside the query, and views inside those.
        with recursive rule as (
            select r.oid as rule_oid, r.ev_class
            from pg_rewrite as r
            where r.ev_class = probe
            union
            select r.oid, r.ev_class
            from rule
            inner join pg_depend as d
                on d.classid = 'pg_rewrite'::regclass and d.objid = rule.rule_oid and d.refclassid = 'pg_class'::regclass
            inner join pg_class as c on c.oid = d.refobjid and c.relkind in ('v', 'm') and c.oid <> rule.ev_class
            inner join pg_rewrite as r on r.ev_class = c.oid
        )
        select array_agg(rule.rule_oid) into seen from rule;

        select string_agg(distinct p.oid::regprocedure::text, ', ') into hidden
        from pg_depend as d
        inner join pg_proc as p on p.oid = d.refobjid
        where d.classid = 'pg_rewrite'::regclass and d.objid = any (seen) and d.refclassid = 'pg_proc'::regclass
            and p.provolatile <> 'i' and p.oid not in ('benefits.today()'::regprocedure, 'benefits.now()'::regprocedure)
            and not p.oid = any (coalesce(declared::oid[], '{}'))
            and not exists (
                select from pg_depend as x
                where x.classid = 'pg_proc'::regclass and x.objid = p.oid and x.deptype = 'e'
            );
        if hidden is not null then
            raise exception 'the % calls functions that may read tables unseen: %', what, hidden
                using hint = 'Write their tables into the query, or name the functions: '
                    || format('benefits.describe_%s(query, declared => array[''schema.function(type)''::regprocedure])', split_part(what, ' ', 1))
                    || case when what = 'record query'
                        then ' and describe the tables that they read with describe_source(..., columns => ...).'
                        else '; benefits_owner needs the right to execute them.' end;
        end if;

        -- A variable with attribute 0 is a whole row; "select *" is not one, PostgreSQL has expanded it.
        if exists (select from pg_rewrite as r where r.oid = any (seen) and r.ev_action::text like '%:varattno 0 %') then
            raise exception 'the % refers to a whole row, so the columns that it reads cannot be told', what
                using hint = 'Name the columns that you need instead of the row.';
        end if;

        select
            jsonb_agg(distinct jsonb_build_object('schema', n.nspname, 'table', c.relname, 'column', a.attname)),
            jsonb_agg(distinct jsonb_build_object('schema', n.nspname, 'table', c.relname))
        into columns, relations
        from pg_depend as d
        inner join pg_class as c on c.oid = d.refobjid and c.relkind in ('r', 'p', 'f', 'm')
        inner join pg_namespace as n on n.oid = c.relnamespace
        left join pg_attribute as a on a.attrelid = c.oid and a.attnum = d.refobjsubid and d.refobjsubid > 0
        where d.classid = 'pg_rewrite'::regclass and d.objid = any (seen) and d.refclassid = 'pg_class'::regclass
            and n.nspname not in ('pg_catalog', 'information_schema', 'benefits');
        raise exception using errcode = 'BSOK1';
    exception
        when sqlstate 'BSOK1' then null;
    end;
end
$$;
comment on function benefits.query_columns(text, regprocedure[], text) is
'What a query reads and returns, told by PostgreSQL itself; leaves nothing behind.';

create function benefits.describe_search(query text, declared regprocedure[] default null) returns void
language plpgsql
as $$
declare
    found record;
    plain text := regexp_replace(query, ';\s*$', '');
    key_type text;
    read_table record;
begin
    perform benefits.require_setup();
    if query is null then
        update benefits.site set search_query = null, search_key_type = null, search_columns = '{}';
        drop function if exists benefits.read_search(text[], integer);
        drop function if exists benefits.read_names(text[]);
        return;
    end if;
    select * into found from benefits.query_columns(plain, declared, 'search query');
    select o ->> 'type' into key_type from jsonb_array_elements(found.outputs) as o where o ->> 'name' = 'employee_id';
    if key_type is null then
        raise exception 'the search query has no column employee_id'
            using hint = 'Select the employee''s key as employee_id, and what people are called as name.';
    elsif not found.outputs @> '[{"name": "name"}]' then
        raise exception 'the search query has no column name'
            using hint = 'Select what people are called as name; further columns are searched and not shown.';
    elsif key_type <> (select s.record_key_type from benefits.site as s) then
        raise exception 'employee_id has type % in the search query, and % in the record query',
            key_type, (select s.record_key_type from benefits.site as s)
            using hint = 'Select the same key in both.';
    end if;
    update benefits.site
    set search_query = plain, search_key_type = key_type,
        search_columns = array(select o ->> 'name' from jsonb_array_elements(found.outputs) as o);
    for read_table in
        select r ->> 'schema' as s, r ->> 'table' as t from jsonb_array_elements(coalesce(found.relations, '[]')) as r
    loop
        execute format('grant usage on schema %I to benefits_owner', read_table.s);
        execute format('grant select on %I.%I to benefits_owner', read_table.s, read_table.t);
    end loop;
    perform benefits.generate_search();
end
$$;
comment on function benefits.describe_search(text, regprocedure[]) is
'Describes how people are found by name: a SELECT with employee_id, name, and further columns to be searched. Null: not at all.';

create function benefits.generate_search() returns void
language plpgsql
as $$
declare
    site benefits.site;
begin
    select * into site from benefits.site;
    execute format(
        'create or replace function benefits.read_search(words text[], at_most integer) '
        'returns table (employee_id text, name text) language plpgsql stable security definer %s as %L',
        benefits.definer_settings(),
        format(
            E'#variable_conflict use_column\nbegin return query select q.employee_id::text, q.name::text from (%s) as q '
            'where lower(concat_ws('' '', %s)) like all ($1) order by q.name::text, q.employee_id limit $2; end',
            site.search_query,
            (select string_agg(format('q.%I::text', c), ', ' order by n) from unnest(site.search_columns) with ordinality as u (c, n))
        )
    );
    execute format(
        'create or replace function benefits.read_names(ids text[]) '
        'returns table (employee_id text, name text) language plpgsql stable security definer %s as %L',
        benefits.definer_settings(),
        format(
            E'#variable_conflict use_column\nbegin return query select k.id, r.name from unnest($1) as k (id) '
            'cross join lateral (select q.name::text as name from (%s) as q where q.employee_id = k.id::%s offset 0) as r; end',
            site.search_query, site.search_key_type
        )
    );
    execute 'alter function benefits.read_search(text[], integer) owner to benefits_owner';
    execute 'alter function benefits.read_names(text[]) owner to benefits_owner';
    execute 'revoke all on function benefits.read_search(text[], integer), benefits.read_names(text[]) from public';
    execute 'grant execute on function benefits.read_search(text[], integer), benefits.read_names(text[]) to benefits_service';
    -- A mistake should show now.
    execute 'select from benefits.read_search(array[''''], 0), benefits.read_names(''{}'')';
end
$$;

-- Names are personal: whoever reads them is asked who they are, too.
create function benefits.require_viewer() returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    if not pg_has_role(session_user, 'benefits_viewer', 'member') and not pg_has_role(session_user, 'benefits_manager', 'member')
        and not pg_has_role(session_user, 'benefits_service', 'member')
    then
        raise exception 'permission denied: only a member of benefits_viewer or benefits_manager does this'
            using errcode = 'insufficient_privilege', hint = 'A DBA can: grant benefits_viewer to ' || quote_ident(session_user) || ';';
    elsif (select s.search_query from benefits.site as s) is null then
        raise exception 'the site has not described how people are found by name'
            using errcode = 'undefined_function', hint = 'A DBA runs benefits.describe_search; see the README.';
    end if;
end
$$;
comment on function benefits.require_viewer() is 'Raises unless the session''s user may read states, and names are described.';

create function benefits.search_employees(search text, at_most integer default 50)
returns table (employee_id text, name text, state text)
language plpgsql stable security definer
set search_path = pg_catalog, benefits, pg_temp
as $$
#variable_conflict use_column
declare
    words text[] := array(
        select '%' || regexp_replace(lower(w), '([\\%_])', '\\\1', 'g') || '%'
        from regexp_split_to_table(search, '\s+') as w
        where w <> ''
    );
begin
    perform benefits.require_viewer();
    if cardinality(words) > 0 then
        return query
        select f.employee_id, f.name, coalesce(s.state, 'not_syncing')
        from benefits.read_search(words, least(greatest(coalesce(at_most, 50), 1), 1000)) with ordinality as f (employee_id, name, n)
        left join benefits.employee_status as s on s.employee_id = f.employee_id
        order by f.n;
    end if;
end
$$;
comment on function benefits.search_employees(text, integer) is
'People in whose name, or other described columns, every word occurs, by name; 1000 at most. Read from HR, nothing is kept.';

create function benefits.employee_names(employee_ids text[]) returns table (employee_id text, name text)
language plpgsql stable security definer
set search_path = pg_catalog, benefits, pg_temp
as $$
#variable_conflict use_column
begin
    perform benefits.require_viewer();
    if cardinality(employee_ids) > 1000 then
        raise exception 'names of % employees at once', cardinality(employee_ids)
            using errcode = 'program_limit_exceeded', hint = 'Ask for a page of them: 1000 at most.';
    end if;
    return query
    select r.employee_id, r.name
    from benefits.read_names(array(
        select distinct i from unnest(employee_ids) as i
        where exists (select from benefits.employee as k where k.employee_id = i and k.gone_at is null)
    )) as r;
end
$$;
comment on function benefits.employee_names(text[]) is 'What these people are called in HR: for a page of states.';

-- The plan of a search; no value of anybody is read.
create function benefits.explain_search() returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set row_security = off
as $$
declare
    query text := (select s.search_query from benefits.site as s);
    path text;
    plan json;
begin
    if query is null then
        return null;
    end if;
    select substr(c, length('search_path=') + 1) into path
    from pg_proc as p cross join lateral unnest(p.proconfig) as c
    where p.oid = to_regprocedure('benefits.read_search(text[], integer)') and c like 'search_path=%';
    perform set_config('search_path', path, true);
    execute format('explain (format json, verbose) select q.employee_id, q.name from (%s) as q', query) into plan;
    return plan::jsonb;
end
$$;
comment on function benefits.explain_search() is 'How PostgreSQL would look for people by name.';

-- Time -------------------------------------------------------------------------------------------------------------------
-- A date begins at midnight; a timestamp, or a range of them, at its instant. The clock marks both.

alter table benefits.site
add column clock_at timestamptz,
add column has_instants boolean not null default false;
comment on column benefits.site.clock_at is
'Instants of effective-dated rows up to here have been marked; moves when there was one.';
comment on column benefits.site.has_instants is
'Whether a described source has rows that become current at an instant, not at midnight.';

create function benefits.now() returns timestamptz
language sql stable parallel safe
as $$ select coalesce(nullif(current_setting('benefits.as_of_instant', true), '')::timestamptz, statement_timestamp()) $$;
comment on function benefits.now() is
'Now, for record queries that compare timestamps. benefits.upcoming_change asks for records as of another moment.';

-- Generates what finds effective-dated rows: whose rows begin or end on given days, or at instants, and which are still to come.
-- A date can be the first day of a row or the last day of one, so the day after counts as well.
create or replace function benefits.generate_becoming() returns void
language plpgsql
as $$
declare
    days text;
    instants text;
begin
    with dated as (
        select
            s.source_id, format('%I.%I', s.table_schema, s.table_name) as target, s.employee_key, s.effective_from,
            y.typtype = 'r' as is_range, format_type(coalesce(r.rngsubtype, y.oid), null) as of_type
        from benefits.source as s
        inner join pg_attribute as c on c.attrelid = s.table_oid and c.attname = s.effective_from
        -- A domain is as the type under it.
        inner join pg_type as d on d.oid = c.atttypid
        inner join pg_type as y on y.oid = case when d.typtype = 'd' then d.typbasetype else d.oid end
        left join pg_range as r on r.rngtypid = y.oid
        where s.effective_from is not null and s.employee_key is not null
    ),
    bounds as (
        select d.*, b.bound, case d.of_type when 'timestamp with time zone' then b.bound || ' at time zone z.zone' else b.bound || '::timestamp' end as local
        from dated as d
        cross join lateral unnest(
            case when d.is_range
                then array[format('lower(t.%I)', d.effective_from), format('upper(t.%I)', d.effective_from)]
                else array[format('t.%I', d.effective_from)]
            end
        ) as b (bound)
    )
    select
        string_agg(
            format(
                'select t.%I::text as employee_id, d.on_date from %s as t cross join (select time_zone as zone from benefits.site) as z '
                'cross join lateral (select x::date as on_date from unnest(array[%s]) as x) as d where d.on_date between $1 and $2',
                b.employee_key, b.target,
                case when b.is_range then b.local else format('%s, %s + interval ''1 day''', b.local, b.local) end
            ),
            E'\nunion ' order by b.source_id, b.bound
        ),
        -- The conditions on the column itself are for an index: on it, or GiST on a range. Local times are an hour apart from
        -- what they were when the clocks go back.
        string_agg(
            format(
                case b.of_type
                    when 'timestamp with time zone' then
                        'select t.%1$I::text as employee_id, %3$s as at from %2$s as t where %3$s > $1 and %3$s <= $2 and %4$s'
                    else
                        'select t.%1$I::text as employee_id, %3$s at time zone z.zone as at from %2$s as t '
                        'cross join (select time_zone as zone from benefits.site) as z '
                        'where %3$s at time zone z.zone > $1 and %3$s at time zone z.zone <= $2 and %4$s'
                end,
                b.employee_key, b.target, b.bound,
                case
                    when b.is_range and b.of_type = 'timestamp with time zone' then
                        format('t.%I && tstzrange($1, $2, ''[]'')', b.effective_from)
                    when b.is_range then
                        format('t.%I && tsrange(($1 at time zone z.zone) - interval ''1 hour'', ($2 at time zone z.zone) + interval ''1 hour'', ''[]'')', b.effective_from)
                    when b.of_type = 'timestamp with time zone' then 'true'
                    else format('%s between ($1 at time zone z.zone) - interval ''1 hour'' and ($2 at time zone z.zone) + interval ''1 hour''', b.bound)
                end
            ),
            E'\nunion ' order by b.source_id, b.bound
        ) filter (where b.of_type like 'timestamp%')
    into days, instants
    from bounds as b;
    perform benefits.generate_dated('benefits.read_becoming(date, date)', 'first date, last date', 'on_date date', days);
    perform benefits.generate_dated('benefits.read_instants(timestamptz, timestamptz)', 'first timestamptz, last timestamptz', 'at timestamptz', instants);
    update benefits.site set has_instants = instants is not null where has_instants <> (instants is not null);
    -- A mistake should show now.
    execute 'select from benefits.read_becoming(null, null), benefits.read_instants(null, null)';
end
$$;

create function benefits.generate_dated(signature text, arguments text, output text, query text) returns void
language plpgsql
as $$
begin
    execute format(
        'create or replace function %s(%s) returns table (employee_id text, %s) language plpgsql stable security definer %s as %L',
        split_part(signature, '(', 1), arguments, output, benefits.definer_settings(),
        format(
            E'#variable_conflict use_column\nbegin return query %s; end',
            coalesce(query, format('select null::text, null::%s where false', split_part(output, ' ', 2)))
        )
    );
    execute format('alter function %s owner to benefits_owner', signature);
    execute format('revoke all on function %s from public', signature);
    execute format('grant execute on function %s to benefits_service', signature);
end
$$;

-- The record as it will be at a moment, if nothing else changes.
drop function benefits.record_as_of(text, date);
create function benefits.record_at(employee text, moment timestamptz) returns jsonb
language plpgsql volatile
as $$
declare
    record_ jsonb;
begin
    perform set_config('benefits.as_of', ((moment at time zone s.time_zone)::date)::text, true),
        set_config('benefits.as_of_instant', to_char(moment at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS.US+00'), true)
    from benefits.site as s;
    select to_jsonb(r) into record_ from benefits.read_records(array[employee]) as r limit 1;
    return record_;
end
$$;

drop view benefits.upcoming_change;
drop function benefits.upcoming_changes(text[]);
-- The fields of a record that will differ at a moment from those just before it, for synced employees.
create function benefits.upcoming_changes(employee_ids text[] default null)
returns table (employee_id text, on_date date, fields text[], at timestamptz)
language plpgsql security definer
set search_path = pg_catalog, benefits, pg_temp
as $$
#variable_conflict use_column
declare
    before_day text := coalesce(current_setting('benefits.as_of', true), '');
    before_instant text := coalesce(current_setting('benefits.as_of_instant', true), '');
    zone text := (select s.time_zone from benefits.site as s);
    event record;
begin
    if to_regprocedure('benefits.read_instants(timestamptz, timestamptz)') is null or to_regprocedure('benefits.read_records(text[])') is null then
        return;
    end if;
    for event in
        select b.at, array_agg(b.employee_id) as ids
        from (
            select d.employee_id, d.on_date::timestamp at time zone zone as at
            from benefits.read_becoming(benefits.today() + 1, 'infinity') as d
            where isfinite(d.on_date)
            union
            select i.employee_id, i.at
            from benefits.read_instants(benefits.now(), 'infinity') as i
            where isfinite(i.at)
        ) as b
        inner join benefits.enrolment as e on e.employee_id = b.employee_id and e.transferred_to is null
        where $1 is null or b.employee_id = any ($1)
        group by b.at
        order by b.at
    loop
        return query
        with then_ as materialized (
            select r.employee_id, benefits.record_at(r.employee_id, event.at - interval '1 microsecond') as was,
                benefits.record_at(r.employee_id, event.at) as becomes
            from unnest(event.ids) as r (employee_id)
        )
        select t.employee_id, (event.at at time zone zone)::date, d.fields, event.at
        from then_ as t
        cross join lateral (
            select array_agg(distinct benefits.property_name(c.name) order by benefits.property_name(c.name)) as fields
            from benefits.record_columns() as c (name)
            where t.was ->> c.name is distinct from t.becomes ->> c.name
        ) as d
        where d.fields is not null
        order by t.employee_id;
    end loop;
    perform set_config('benefits.as_of', before_day, true), set_config('benefits.as_of_instant', before_instant, true);
end
$$;
comment on function benefits.upcoming_changes(text[]) is
'What will send itself, and when: fields of the record that change at a later moment without any save.';
create view benefits.upcoming_change as
select u.employee_id, u.on_date, u.fields, u.at from benefits.upcoming_changes() as u;
comment on view benefits.upcoming_change is
'What will send itself, and when: dated rows of synced employees that become current later, at midnight or at their instant.';

-- Holds ------------------------------------------------------------------------------------------------------------------

comment on column benefits.hold.transaction_user is
'Whose transaction it was. The WAL does not say: open transactions are looked at 20 times a second, so one of 100 ms or more '
'is named; null where it was over sooner, or where the hold gathers the transactions of several users.';

-- Who may do what --------------------------------------------------------------------------------------------------------

do $$
declare
    thing text;
begin
    execute 'alter view benefits.upcoming_change owner to benefits_owner';
    foreach thing in array array[
        'benefits.upcoming_changes(text[])', 'benefits.search_employees(text, integer)', 'benefits.employee_names(text[])',
        'benefits.explain_search()'
    ] loop
        execute format('alter function %s owner to benefits_owner', thing);
    end loop;
    foreach thing in array array[
        'benefits.keep_enrolled()', 'benefits.query_columns(text, regprocedure[], text)',
        'benefits.describe_search(text, regprocedure[])', 'benefits.generate_search()', 'benefits.require_viewer()',
        'benefits.search_employees(text, integer)', 'benefits.employee_names(text[])', 'benefits.explain_search()',
        'benefits.now()', 'benefits.generate_becoming()', 'benefits.generate_dated(text, text, text, text)',
        'benefits.record_at(text, timestamptz)', 'benefits.upcoming_changes(text[])'
    ] loop
        execute format('revoke all on function %s from public', thing);
        execute format('grant execute on function %s to benefits_owner', thing);
    end loop;
end
$$;
grant execute on function benefits.now(), benefits.upcoming_changes(text[]), benefits.search_employees(text, integer), benefits.employee_names(text[])
to benefits_viewer, benefits_manager, benefits_service;
grant execute on function benefits.explain_search() to benefits_service;
grant select on benefits.upcoming_change to benefits_viewer, benefits_manager, benefits_service;

-- A site that is described already.
select benefits.generate_becoming() where exists (select from benefits.source);
