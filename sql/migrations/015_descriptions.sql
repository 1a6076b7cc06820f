-- A description is tried before it is accepted: what of HR's it would break, what it may not read, whose functions it would run.

-- The search path of what is generated -------------------------------------------------------------------------------------

-- Schemas of the caller's path in which somebody else than who owns them may make functions and operators: those would run as
-- benefits_owner, because one that fits the arguments better goes before PostgreSQL's own, wherever it is in the path.
create function benefits.open_schemas() returns name[]
language sql stable
as $$
    select coalesce(array_agg(n.nspname order by n.nspname), '{}')
    from pg_namespace as n
    where n.nspname = any (current_schemas(false)) and exists (
        select
        from aclexplode(n.nspacl) as a
        left join pg_roles as r on r.oid = a.grantee
        where a.privilege_type = 'CREATE' and a.grantee <> n.nspowner and not coalesce(r.rolsuper, false)
            and r.rolname is distinct from 'pg_database_owner'
            and a.grantee <> (select d.datdba from pg_database as d where d.datname = current_database())
    )
$$;
comment on function benefits.open_schemas() is
'Schemas of the search path where others than their owner may create: what is generated does not look into them.';

create or replace function benefits.definer_settings() returns text
language plpgsql
as $$
declare
    left_out text := array_to_string(benefits.open_schemas(), ', ');
begin
    -- Once a transaction: a description asks for the settings many times.
    if left_out <> coalesce(current_setting('benefits.left_out', true), '') then
        perform set_config('benefits.left_out', left_out, true);
        raise warning 'what is generated does not look for names in %: others than its owner may create there', left_out
            using hint = 'Write the schema before the names of HR''s tables and functions; or revoke create on the schema, and describe again.';
    end if;
    return format(
        ' set search_path = %s set row_security = off set datestyle = ''ISO, YMD'''
        ' set intervalstyle = postgres set extra_float_digits = 1 set timezone = %L',
        concat_ws(
            ', ', 'pg_catalog',
            (
                select string_agg(quote_ident(s), ', ' order by i)
                from unnest(current_schemas(false)) with ordinality as p (s, i)
                where s not like 'pg\_%' and s <> all (benefits.open_schemas())
            ),
            'pg_temp'
        ),
        (select time_zone from benefits.site)
    );
end
$$;

-- What a record query reads -------------------------------------------------------------------------------------------------

create or replace function benefits.columns_of(
    query text, declared regprocedure[], what text,
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

        -- The columns are the tables' under a view; the right to read is needed for the view, too.
        select
            jsonb_agg(distinct jsonb_build_object('schema', n.nspname, 'table', c.relname, 'column', a.attname))
                filter (where c.relkind <> 'v'),
            jsonb_agg(distinct jsonb_build_object('schema', n.nspname, 'table', c.relname))
        into columns, relations
        from pg_depend as d
        inner join pg_class as c on c.oid = d.refobjid and c.relkind in ('r', 'p', 'f', 'm', 'v') and c.oid <> probe
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

create or replace function benefits.describe_record(query text, declared regprocedure[] default null) returns void
language plpgsql
as $$
declare
    found record;
    unknown text;
    plain text := regexp_replace(query, ';\s*$', '');
    column_of_table record;
begin
    perform benefits.require_setup();
    select * into found from benefits.query_columns(plain, declared);
    -- address_line1 is as good a spelling of addressLine1 as address_line_1.
    found.outputs := (
        select jsonb_agg(o || jsonb_build_object('property', regexp_replace(o ->> 'name', '([a-z])(\d)$', '\1_\2')))
        from jsonb_array_elements(found.outputs) as o
    );
    if not found.outputs @> '[{"name": "employee_id"}]' then
        raise exception 'the record query has no column employee_id'
            using hint = 'Select the employee''s key as employee_id.';
    end if;
    select string_agg(o ->> 'name', ', ') into unknown
    from jsonb_array_elements(found.outputs) as o
    where o ->> 'name' <> 'employee_id' and o ->> 'property' not in (select * from benefits.record_columns());
    if unknown is not null then
        raise exception 'the record query has columns that Benefits does not know: %', unknown
            using hint = 'Allowed: ' || (select string_agg(c, ', ') from benefits.record_columns() as c);
    end if;
    if jsonb_array_length(found.outputs) <> (select count(distinct o ->> 'property') from jsonb_array_elements(found.outputs) as o) then
        raise exception 'the record query has two columns of one name';
    end if;
    update benefits.site
    set record_query = plain,
        record_key_type = (select o ->> 'type' from jsonb_array_elements(found.outputs) as o where o ->> 'name' = 'employee_id'),
        described = array(
            select o ->> 'property' from jsonb_array_elements(found.outputs) as o where o ->> 'name' <> 'employee_id'
        ),
        described_as = array(
            select o ->> 'name' from jsonb_array_elements(found.outputs) as o where o ->> 'name' <> 'employee_id'
        ),
        query_functions = coalesce(declared::text[], '{}');
    if (select record_key_type !~ '^(smallint|integer|bigint|uuid|text|character varying|bpchar|citext|name)$' from benefits.site) then
        raise exception 'employee_id has type %, which cannot be an employee''s key', (select record_key_type from benefits.site)
            using hint = 'A key is smallint, integer, bigint, uuid or text.';
    end if;
    delete from benefits.query_column;
    insert into benefits.query_column
    select c ->> 'schema', c ->> 'table', c ->> 'column'
    from jsonb_array_elements(coalesce(found.columns, '[]')) as c
    where c ->> 'column' is not null;
    for column_of_table in select r ->> 'schema' as s, r ->> 'table' as t from jsonb_array_elements(coalesce(found.relations, '[]')) as r loop
        execute format('grant usage on schema %I to benefits_owner', column_of_table.s);
        execute format('grant select on %I.%I to benefits_owner', column_of_table.s, column_of_table.t);
    end loop;
    perform benefits.generate_read_records();
    -- Nobody's record: what is missing of rights and columns should show now.
    perform from benefits.read_records('{}');
    perform benefits.bind_source(s.source_id) from benefits.source as s;
    update benefits.description set version = version + 1;
end
$$;

-- Keys ----------------------------------------------------------------------------------------------------------------------

-- What the WAL tells of a row that is updated or deleted. Columns that an index merely includes are not in it, a key whose check
-- can be deferred is none, and with replica identity nothing updates fail.
create function benefits.identity_columns(target oid) returns name[]
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select coalesce(array_agg(a.attname order by a.attnum), '{}')
    from pg_class as c
    inner join pg_index as i
        on i.indrelid = c.oid and i.indimmediate
        and case c.relreplident when 'i' then i.indisreplident when 'n' then false else i.indisprimary end
    cross join lateral unnest(i.indkey) with ordinality as k (attnum, n)
    inner join pg_attribute as a on a.attrelid = i.indrelid and a.attnum = k.attnum
    where c.oid = target and k.n <= i.indnkeyatts
$$;
comment on function benefits.identity_columns(oid) is 'The key columns of a table''s replica identity; none where it has none.';

-- PostgreSQL publishes what inherits from a table with it: each partition, and each child of the older kind.
create function benefits.require_identity_below(target regclass, keys name[]) returns void
language plpgsql stable
as $$
declare
    children text;
    part record;
begin
    select string_agg(i.inhrelid::regclass::text, ', ' order by i.inhrelid::regclass::text) into children
    from pg_inherits as i
    inner join pg_class as c on c.oid = i.inhrelid and not c.relispartition
    where i.inhparent = target;
    if children is not null then
        raise exception 'tables inherit from %: %', target, children
            using hint = 'Publishing it would publish them, too. They inherit no primary key, so the HR application''s updates would fail, '
                'and their rows are not told as rows of the table. Take them apart (alter table ... no inherit ...), or partition the table.';
    end if;
    select t.relid, benefits.identity_columns(t.relid) as columns into part
    from pg_partition_tree(target) as t
    inner join pg_class as c on c.oid = t.relid and c.relkind = 'r'
    where c.relreplident <> 'f' and not benefits.identity_columns(t.relid) @> keys
    order by t.relid::text
    limit 1;
    if part.columns = '{}' then
        raise exception 'partition % of table % has no replica identity', part.relid, target
            using hint = format('alter table %s replica identity using index ...; a partition does not inherit its table''s choice. '
                'Publishing it without one would make the HR application''s updates fail.', part.relid);
    elsif part.relid is not null then
        raise exception 'partition % of table % has another replica identity (%) than the table (%)',
            part.relid, target, array_to_string(part.columns, ', '), array_to_string(keys, ', ')
            using hint = format('alter table %s replica identity using index ...; of the same columns as the table''s.', part.relid);
    end if;
end
$$;
comment on function benefits.require_identity_below(regclass, name[]) is
'Refuses a table that cannot be published without harm to what inherits from it.';

create or replace function benefits.bind_source(id integer) returns void
language plpgsql
as $$
declare
    s benefits.source;
    target regclass;
    mapped name[];
    keys name[];
begin
    select * into s from benefits.source where source_id = id;
    target := to_regclass(format('%I.%I', s.table_schema, s.table_name));
    mapped := coalesce(s.declared_columns, array(
        select q.column_name from benefits.query_column as q
        where q.table_schema = s.table_schema and q.table_name = s.table_name
    ));
    if s.employee_key is not null and not s.employee_key = any (mapped) then
        mapped := mapped || s.employee_key;
    end if;
    keys := benefits.identity_columns(target);
    if (select c.relreplident from pg_class as c where c.oid = target) = 'n' then
        raise exception 'table % has replica identity nothing', target
            using hint = format('alter table %s replica identity default; publishing it with none would make the HR application''s '
                'updates fail.', target);
    elsif keys = '{}' then
        raise exception 'table % has no replica identity: no primary key, and no unique index chosen instead', target
            using hint = format('alter table %s add primary key (...), or alter table %1$s replica identity using index ...; '
                'publishing it without one would make the HR application''s updates fail.', target);
    end if;
    perform benefits.require_identity_below(target, keys);
    update benefits.source
    set table_oid = target,
        mapped_columns = benefits.base_columns(target, mapped),
        key_columns = keys,
        is_root = (keys = array[s.employee_key])
    where source_id = id;
end
$$;

-- Time ----------------------------------------------------------------------------------------------------------------------

create or replace function benefits.record_at(employee text, moment timestamptz) returns jsonb
language plpgsql volatile
as $$
declare
    record_ jsonb;
begin
    -- In a form that is read in every session's DateStyle.
    perform set_config('benefits.as_of', to_char(moment at time zone s.time_zone, 'YYYY-MM-DD'), true),
        set_config('benefits.as_of_instant', to_char(moment at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS.US+00'), true)
    from benefits.site as s;
    select to_jsonb(r) into record_ from benefits.read_records(array[employee]) as r limit 1;
    return record_;
end
$$;

-- Nobody who is asked to start what runs -----------------------------------------------------------------------------------

create or replace function benefits.why_stopped() returns text
language sql stable
set search_path = pg_catalog, benefits, pg_temp
as $$
    select case
        when s.paused_reason is not null then format('delivery is paused for the site (%s); a manager resumes it', s.paused_reason)
        when s.halted_code = 'switched-off' then 'the module is switched off in the configuration (benefits.enabled); operators switch it on'
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

-- Who may do what -----------------------------------------------------------------------------------------------------------

revoke all on function benefits.open_schemas(), benefits.identity_columns(oid), benefits.require_identity_below(regclass, name[])
from public;
grant execute on function benefits.open_schemas(), benefits.identity_columns(oid), benefits.require_identity_below(regclass, name[])
to benefits_owner;
-- They may call benefits.today(), which runs as its caller.
grant select (time_zone) on benefits.site to benefits_viewer, benefits_manager;

-- A site that is described already: included columns were taken for a part of the key.
do $$
begin
    update benefits.source as s
    set key_columns = i.columns
    from (select o.source_id, benefits.identity_columns(o.table_oid) as columns from benefits.source as o) as i
    where i.source_id = s.source_id and i.columns <> s.key_columns and s.key_columns @> i.columns
        -- A table that turns out to be the employees' own has to be described again.
        and i.columns <> '{}' and i.columns <> array[s.employee_key];
    if found then
        perform benefits.generate_owned_rows();
        update benefits.description set version = version + 1;
    end if;
end
$$;
