-- How a site describes itself: describe_record, describe_source, and the functions generated from them.
-- The query is kept as text and runs in functions with string bodies, so that nothing depends on an HR table.

create function benefits.require_setup() returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    if not pg_has_role(current_user, 'benefits_owner', 'member') then
        raise exception 'permission denied: only a member of benefits_owner describes the site'
            using errcode = 'insufficient_privilege', hint = 'Run the description as the login that ran setup.';
    end if;
end
$$;

-- The columns that a query reads, through a temporary view that is rolled back.
create function benefits.query_columns(
    query text, declared regprocedure[], out columns jsonb, out outputs jsonb, out relations jsonb
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
            and p.provolatile <> 'i' and p.oid <> 'benefits.today()'::regprocedure
            and not p.oid = any (coalesce(declared::oid[], '{}'))
            and not exists (
                select from pg_depend as x
                where x.classid = 'pg_proc'::regclass and x.objid = p.oid and x.deptype = 'e'
            );
        if hidden is not null then
            raise exception 'the record query calls functions that may read tables unseen: %', hidden
                using hint = 'Write their tables into the query, or name the functions: '
                    || 'benefits.describe_record(query, declared => array[''schema.function(type)''::regprocedure]) '
                    || 'and describe the tables that they read with describe_source(..., columns => ...).';
        end if;

        -- A variable with attribute 0 is a whole row; "select *" is not one, PostgreSQL has expanded it.
        if exists (select from pg_rewrite as r where r.oid = any (seen) and r.ev_action::text like '%:varattno 0 %') then
            raise exception 'the record query refers to a whole row, so the columns that it reads cannot be told'
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
comment on function benefits.query_columns(text, regprocedure[]) is
'What a query reads and returns, told by PostgreSQL itself; leaves nothing behind.';

-- A generated column is not in the WAL before PostgreSQL 18: its base columns stand for it.
create function benefits.base_columns(target regclass, columns name[]) returns name[]
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select coalesce(array_agg(distinct b.attname order by b.attname), '{}')
    from pg_attribute as a
    left join pg_attrdef as g on g.adrelid = a.attrelid and g.adnum = a.attnum and a.attgenerated <> ''
    left join pg_depend as d
        on d.classid = 'pg_attrdef'::regclass and d.objid = g.oid and d.refclassid = 'pg_class'::regclass
        and d.refobjid = a.attrelid and d.refobjsubid > 0 and d.refobjsubid <> a.attnum
    inner join pg_attribute as b
        on b.attrelid = a.attrelid and b.attnum = coalesce(d.refobjsubid, a.attnum) and b.attgenerated = ''
    where a.attrelid = target and a.attname = any (columns) and a.attnum > 0 and not a.attisdropped
$$;

create function benefits.definer_settings() returns text
language sql stable
as $$
    select format(
        ' set search_path = pg_catalog, %s, pg_temp set row_security = off set datestyle = ''ISO, YMD'''
        ' set intervalstyle = postgres set extra_float_digits = 1 set timezone = %L',
        (
            select string_agg(quote_ident(s), ', ' order by i)
            from unnest(current_schemas(false)) with ordinality as p (s, i)
            where s not like 'pg\_%'
        ),
        (select time_zone from benefits.site)
    )
$$;

create function benefits.generate_read_records() returns void
language plpgsql
as $$
declare
    site benefits.site;
begin
    select * into site from benefits.site;
    if site.record_query is null then
        return;
    end if;
    -- One employee at a time inside one statement: an equality reaches into DISTINCT ON, GROUP BY and window
    -- sub-queries, which "= any (ids)" does not. "offset 0" keeps the planner from pulling the sub-query up again.
    execute format(
        'create or replace function benefits.read_records(ids text[]) returns table (employee_id text, %s) '
        'language plpgsql stable security definer %s as %L',
        (select string_agg(format('%I text', c), ', ' order by i) from benefits.record_columns() with ordinality as t (c, i)),
        benefits.definer_settings(),
        format(
            E'#variable_conflict use_column\nbegin return query select k.id, r.* from unnest($1) as k (id) '
            'cross join lateral (select %s from (%s) as q where q.employee_id = k.id::%s offset 0) as r; end',
            (
                select string_agg(
                    coalesce('q.' || quote_ident(site.described_as[array_position(site.described, t.c)]) || '::text', 'null::text'),
                    ', ' order by t.i
                )
                from benefits.record_columns() with ordinality as t (c, i)
            ),
            site.record_query, site.record_key_type
        )
    );
    execute 'alter function benefits.read_records(text[]) owner to benefits_owner';
    execute 'revoke all on function benefits.read_records(text[]) from public';
    execute 'grant execute on function benefits.read_records(text[]) to benefits_service';
end
$$;

create function benefits.record_columns() returns setof text
language sql immutable
set search_path = pg_catalog, pg_temp
as $$ select unnest(array[
        'employee_number', 'title', 'forenames', 'known_as', 'surname', 'date_of_birth', 'gender',
        'national_insurance_number', 'home_email', 'work_email', 'services_email', 'telephone', 'mobile',
        'address_line_1', 'address_line_2', 'address_line_3', 'address_line_4', 'postcode', 'country_code',
        'start_date', 'continuous_service_date', 'leave_date', 'job_title', 'grade', 'department', 'location',
        'weekly_hours', 'fte', 'annual_pay', 'currency', 'pay_basis', 'pay_frequency', 'pay_change_reason',
        'pay_effective_date', 'benefits_level'
    ]) $$;
comment on function benefits.record_columns() is 'The columns that a record query may have beside employee_id.';

create function benefits.describe_record(query text, declared regprocedure[] default null) returns void
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
    perform benefits.bind_source(s.source_id) from benefits.source as s;
    update benefits.description set version = version + 1;
end
$$;
comment on function benefits.describe_record(text, regprocedure[]) is
'Describes an employee''s record: a SELECT with one row an employee, employee_id and columns named as the API''s properties.';

-- Works out a source's mapped columns and key from the query and the catalogue, and generates what reads it.
create function benefits.bind_source(id integer) returns void
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
    select coalesce(array_agg(a.attname order by a.attnum), '{}') into keys
    from pg_index as i
    cross join lateral unnest(i.indkey) as k (attnum)
    inner join pg_attribute as a on a.attrelid = i.indrelid and a.attnum = k.attnum
    inner join pg_class as c on c.oid = i.indrelid
    where i.indrelid = target and (
        (c.relreplident = 'i' and i.indisreplident) or (c.relreplident <> 'i' and i.indisprimary)
    );
    if keys = '{}' then
        raise exception 'table % has no replica identity: no primary key, and no unique index chosen instead', target
            using hint = format('alter table %s add primary key (...), or alter table %1$s replica identity using index ...; '
                'publishing it without one would make the HR application''s updates fail.', target);
    end if;
    update benefits.source
    set table_oid = target,
        mapped_columns = benefits.base_columns(target, mapped),
        key_columns = keys,
        is_root = (keys = array[s.employee_key])
    where source_id = id;
end
$$;

create function benefits.describe_source(
    source regclass,
    employee_key name default null,
    affected text default null,
    starter_flag name default null,
    effective_from name default null,
    columns name[] default null,
    tracked boolean default true
) returns void
language plpgsql
as $$
declare
    named text;
    spot record;
    wanted name;
    key_type text;
    id integer;
begin
    perform benefits.require_setup();
    select n.nspname, c.relname, c.relkind, c.relpersistence into spot
    from pg_class as c inner join pg_namespace as n on n.oid = c.relnamespace where c.oid = source;
    if spot.relkind not in ('r', 'p') or spot.relpersistence <> 'p' then
        raise exception '% is not an ordinary table, so its changes are not in the WAL', source
            using hint = 'Describe the tables under it.';
    end if;
    if (employee_key is null) = (affected is null) then
        raise exception 'describe_source(%): give employee_key or affected, one of the two', source
            using hint = 'employee_key names the column with the employee''s id; affected is, for a lookup table, '
                'a query of the employees whom changed rows affect, with $1 the array of the rows'' keys.';
    end if;
    foreach wanted in array array_remove(array[employee_key, starter_flag, effective_from] || coalesce(columns, '{}'), null) loop
        if not exists (select from pg_attribute where attrelid = source and attname = wanted and attnum > 0 and not attisdropped) then
            raise exception 'table % has no column %', source, quote_ident(wanted);
        end if;
    end loop;
    if columns is null and (select record_query from benefits.site) is not null and not exists (
        select from benefits.query_column as q where q.table_schema = spot.nspname and q.table_name = spot.relname
    ) then
        raise exception 'the record query does not read table %', source
            using hint = 'Leave it out, or give the columns that matter: columns => array[...].';
    end if;
    insert into benefits.source as known
        (table_schema, table_name, table_oid, employee_key, affected, starter_flag, effective_from, declared_columns,
         mapped_columns, key_columns, is_root, tracked)
    values
        (spot.nspname, spot.relname, source, employee_key, affected, starter_flag, effective_from, columns,
         '{}', '{}', false, tracked)
    on conflict (table_schema, table_name) do update
    set table_oid = excluded.table_oid, employee_key = excluded.employee_key, affected = excluded.affected,
        starter_flag = excluded.starter_flag, effective_from = excluded.effective_from,
        declared_columns = excluded.declared_columns, tracked = excluded.tracked
    returning known.source_id into id;
    execute format('grant usage on schema %I to benefits_owner', spot.nspname);
    execute format('grant select on %s to benefits_owner', source);
    perform benefits.bind_source(id);
    if affected is not null then
        perform benefits.generate_affected(id);
    end if;
    if (select s.is_root from benefits.source as s where s.source_id = id) then
        perform benefits.generate_roster(id);
        execute format(
            'insert into benefits.employee (employee_id, starter_baseline) '
            'select r.employee_id, r.starter from benefits.read_roster(null, null) as r on conflict do nothing'
        );
    end if;
    perform benefits.generate_owned_rows();
    perform benefits.generate_becoming();
    perform benefits.publish_sources();
    update benefits.description set version = version + 1;
end
$$;
comment on function benefits.describe_source(regclass, name, text, name, name, name[], boolean) is
'Describes an HR table under the record query: how a changed row leads to employees. See the README.';

-- Pages of everyone in HR, by key, from the table whose key is the employee's.
create function benefits.generate_roster(id integer) returns void
language plpgsql
as $$
declare
    s benefits.source;
    key_type text;
    flag text;
    target text;
begin
    select * into s from benefits.source where source_id = id;
    target := format('%I.%I', s.table_schema, s.table_name);
    select format_type(a.atttypid, -1) into key_type
    from pg_attribute as a where a.attrelid = target::regclass and a.attname = s.employee_key;
    flag := case
        when s.starter_flag is null then 'false'
        else format('coalesce(lower(rtrim(t.%I::text)) in (''t'', ''true'', ''1'', ''y'', ''yes''), false)', s.starter_flag)
    end;
    execute format(
        'create or replace function benefits.read_roster(after text, page integer) returns table (employee_id text, starter boolean) '
        'language plpgsql stable security definer %s as %L',
        benefits.definer_settings(),
        format(
            E'#variable_conflict use_column\nbegin if $1 is null then return query select t.%1$I::text, %3$s from %2$s as t '
            'order by t.%1$I limit $2; else return query select t.%1$I::text, %3$s from %2$s as t where t.%1$I > $1::%4$s '
            'order by t.%1$I limit $2; end if; end',
            s.employee_key, target, flag, key_type
        )
    );
    execute format(
        'create or replace function benefits.find_in_roster(ids text[]) returns setof text '
        'language plpgsql stable security definer %s as %L',
        benefits.definer_settings(),
        format(
            'begin return query select t.%1$I::text from %2$s as t where t.%1$I = any ($1::%3$s[]); end',
            s.employee_key, target, key_type
        )
    );
    execute 'alter function benefits.read_roster(text, integer) owner to benefits_owner';
    execute 'alter function benefits.find_in_roster(text[]) owner to benefits_owner';
    execute 'revoke all on function benefits.read_roster(text, integer), benefits.find_in_roster(text[]) from public';
    execute 'grant execute on function benefits.read_roster(text, integer), benefits.find_in_roster(text[]) to benefits_service';
end
$$;

-- The child rows of employees whose table does not name the employee in its replica identity.
create function benefits.generate_owned_rows() returns void
language plpgsql
as $$
declare
    parts text;
begin
    select string_agg(
        format(
            'select %1$s, concat_ws(E''\x1f'', %2$s), t.%3$I::text from %4$I.%5$I as t where t.%3$I = any ($1::%6$s[])',
            s.source_id,
            -- No cast: concat_ws shows values as the WAL does, a cast to text does not (boolean, bpchar, inet).
            (select string_agg(format('t.%I', k), ', ' order by n) from unnest(s.key_columns) with ordinality as u (k, n)),
            s.employee_key, s.table_schema, s.table_name, a.key_type
        ),
        ' union all ' order by s.source_id
    )
    into parts
    from benefits.source as s
    cross join lateral (
        select format_type(c.atttypid, -1) as key_type
        from pg_attribute as c where c.attrelid = s.table_oid and c.attname = s.employee_key
    ) as a
    where s.tracked and s.employee_key is not null and not s.employee_key = any (s.key_columns);
    execute format(
        'create or replace function benefits.read_owned_rows(ids text[]) '
        'returns table (source_id integer, row_key text, employee_id text) '
        'language plpgsql stable security definer %s as %L',
        benefits.definer_settings(),
        format(
            E'#variable_conflict use_column\nbegin return query %s; end',
            coalesce(parts, 'select null::integer, null::text, null::text where false')
        )
    );
    execute 'alter function benefits.read_owned_rows(text[]) owner to benefits_owner';
    execute 'revoke all on function benefits.read_owned_rows(text[]) from public';
    execute 'grant execute on function benefits.read_owned_rows(text[]) to benefits_service';
end
$$;

-- Whom changed rows of a lookup table affect.
create function benefits.generate_affected(id integer) returns void
language plpgsql
as $$
declare
    s benefits.source;
    key_type text;
    call text;
begin
    select * into s from benefits.source where source_id = id;
    if cardinality(s.key_columns) <> 1 then
        raise exception 'lookup table %.% has a key of % columns', s.table_schema, s.table_name, cardinality(s.key_columns)
            using hint = 'A lookup needs a key of one column.';
    end if;
    select format_type(a.atttypid, -1) into key_type
    from pg_attribute as a where a.attrelid = s.table_oid and a.attname = s.key_columns[1];
    call := format('benefits.read_affected_%s', id);
    execute format(
        'create or replace function %s(keys text[]) returns setof text language plpgsql stable security definer %s as %L',
        call, benefits.definer_settings(),
        format(
            'begin return query execute %L using $1::%s[]; end',
            format('select a.employee_id::text from (%s) as a (employee_id)', regexp_replace(s.affected, ';\s*$', '')), key_type
        )
    );
    execute format('alter function %s(text[]) owner to benefits_owner', call);
    execute format('revoke all on function %s(text[]) from public', call);
    execute format('grant execute on function %s(text[]) to benefits_service', call);
    -- A mistake in the query should show now, to the person who wrote it.
    execute format('select count(*) from %s(''{}'')', call);
end
$$;

-- The publication holds the described tables and the ledger's own command tables, and nothing else.
create function benefits.publish_sources() returns void
language plpgsql
as $$
declare
    name_of_publication name := (select publication from benefits.site);
    missing record;
begin
    if not exists (select from pg_publication where pubname = name_of_publication) then
        execute format(
            'create publication %I for table benefits.request, benefits.failed, benefits.description, '
            'benefits.picklist_value, benefits.level_package with (publish_via_partition_root = true)',
            name_of_publication
        );
    end if;
    for missing in
        select s.table_schema, s.table_name
        from benefits.source as s
        where not exists (
            select from pg_publication_tables as t
            where t.pubname = name_of_publication and t.schemaname = s.table_schema and t.tablename = s.table_name
        )
    loop
        execute format('alter publication %I add table %I.%I', name_of_publication, missing.table_schema, missing.table_name);
    end loop;
end
$$;

-- Lets a login of another name do what one of our roles does.
create function benefits.grant_login(login name, role_name name) returns void
language plpgsql
as $$
begin
    if exists (select from pg_roles where rolname = login and not rolsuper) and not pg_has_role(login, role_name, 'member') then
        execute format('grant %I to %I', role_name, login);
    end if;
end
$$;
