-- A starter flag that is described later makes nobody a starter; a row's key has one text, in whatever zone it is read; who is
-- forgotten while something is recorded of them is forgotten whole; a partition that is emptied or exchanged is noticed.

create or replace function benefits.describe_source(
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
    spot record;
    wanted name;
    id integer;
    flag_before name;
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
    select s.starter_flag into flag_before
    from benefits.source as s where s.table_schema = spot.nspname and s.table_name = spot.relname;
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
        insert into benefits.employee as k (employee_id, starter_baseline)
        -- Whose flag is up when it is described was ticked for something else before: they are no starters. Who was hired since
        -- it was described is one, whoever meets them first.
        select r.employee_id, r.starter and describe_source.starter_flag is distinct from flag_before
        from benefits.read_roster(null, null) as r
        on conflict (employee_id) do update set starter_baseline = true
        where excluded.starter_baseline and not k.starter_baseline;
    end if;
    perform benefits.generate_owned_rows();
    perform benefits.generate_becoming();
    perform benefits.publish_sources();
    update benefits.description set version = version + 1;
end
$$;

create or replace function benefits.generate_owned_rows() returns void
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
        -- Times in the zone that the reader of the WAL asks for: a key has one text.
        benefits.definer_settings() || ' set timezone = ''UTC''',
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

create or replace function benefits.forget(employee_id text) returns void
language plpgsql security definer
set search_path = pg_catalog, benefits, pg_temp
as $$
begin
    perform benefits.require_manager();
    delete from benefits.pending as p where p.employee_id = forget.employee_id;
    delete from benefits.request as r where r.employee_id = forget.employee_id or (r.kind = 'transfer' and r.argument = forget.employee_id);
    -- Before the history: what is being recorded meanwhile is either there by then, or finds nobody.
    delete from benefits.enrolment as e where e.employee_id = forget.employee_id;
    delete from benefits.history as h where h.employee_id = forget.employee_id;
    delete from benefits.failed as f where f.employee_id = forget.employee_id;
    update benefits.enrolment as e set transferred_from = null where e.transferred_from = forget.employee_id;
    delete from benefits.row_owner as w where w.employee_id = forget.employee_id;
    delete from benefits.ending as n where n.employee_id = forget.employee_id;
    delete from benefits.hold_member as m where m.employee_id = forget.employee_id;
    -- Somebody whom HR still has stays on the list of employees, and is no starter.
    delete from benefits.employee as k where k.employee_id = forget.employee_id and k.gone_at is not null;
    update benefits.employee as k set starter_baseline = true where k.employee_id = forget.employee_id;
end
$$;

create table benefits.partition (
    table_oid oid not null,
    storage oid not null,
    constraint partition_pk primary key (table_oid)
);
comment on table benefits.partition is
'Partitions of described tables as last seen: what is done to a whole one is not in the WAL that is published.';
grant select, insert, update, delete on benefits.partition to benefits_service;

select benefits.generate_owned_rows() where exists (select from benefits.source);
