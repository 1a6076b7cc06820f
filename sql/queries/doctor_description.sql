-- What doctor wants to know of the description and the publication. $1 the publication.
-- to_regclass would ask for a privilege on HR's schemas, which the service does not have.
with recursive here as materialized (
    select n.nspname as table_schema, c.relname as table_name, c.oid
    from pg_class as c
    inner join pg_namespace as n on n.oid = c.relnamespace
    where c.relkind in ('r', 'p', 'f', 'm', 'v')
        and (n.nspname, c.relname) in (
            select s.table_schema, s.table_name from benefits.source as s
            union
            select q.table_schema, q.table_name from benefits.query_column as q
        )
),
described as (
    select
        s.*,
        (select h.oid from here as h where h.table_schema = s.table_schema and h.table_name = s.table_name) as now,
        format('%I.%I', s.table_schema, s.table_name) as name
    from benefits.source as s
),
-- What inherits from a described table: partitions, and children of the older kind.
below as (
    select d.source_id, i.inhrelid as oid from described as d inner join pg_inherits as i on i.inhparent = d.now
    union all
    select b.source_id, i.inhrelid from below as b inner join pg_inherits as i on i.inhparent = b.oid
),
-- What the WAL tells of an updated or deleted row, as benefits.identity_columns says; an older schema does not have that.
identified as (
    select
        c.oid, format('%I.%I', n.nspname, c.relname) as name, c.relkind, c.relispartition, c.relreplident = 'f' as is_full,
        array(
            select a.attname
            from pg_index as i
            cross join lateral unnest(i.indkey) with ordinality as k (attnum, n)
            inner join pg_attribute as a on a.attrelid = i.indrelid and a.attnum = k.attnum
            where i.indrelid = c.oid and i.indimmediate and k.n <= i.indnkeyatts
                and case c.relreplident when 'i' then i.indisreplident when 'n' then false else i.indisprimary end
            order by a.attnum
        ) as columns
    from pg_class as c
    inner join pg_namespace as n on n.oid = c.relnamespace
    where c.oid in (select d.now from described as d union select b.oid from below as b)
),
published as (
    select p.schemaname, p.tablename, p.attnames, p.rowfilter
    from pg_publication_tables as p
    where p.pubname = $1::text::name
)
select jsonb_build_object(
    'versions', array(select version from benefits.migration order by version),
    'is_described', s.record_query is not null,
    'columns', s.described,
    'platform_id', s.platform_id,
    'time_zone', s.time_zone,
    'fingerprint_check', encode(s.fingerprint_check, 'escape'),
    'has_started', exists (select from benefits.checkpoint),
    'roots', (select count(*) from benefits.source where is_root),
    'has_search', s.search_query is not null,
    'has_set_level', to_regprocedure('benefits.set_level(text, text)') is not null,
    'query_columns_gone', array(
        select format('%I.%I.%I', q.table_schema, q.table_name, q.column_name)
        from benefits.query_column as q
        where not exists (
            select from pg_attribute as a
            inner join here as h on h.oid = a.attrelid
            where h.table_schema = q.table_schema and h.table_name = q.table_name and a.attname = q.column_name and a.attnum > 0 and not a.attisdropped
        )
        order by 1
    ),
    'tables_not_described', array(
        select distinct format('%I.%I', q.table_schema, q.table_name)
        from benefits.query_column as q
        where exists (
            select from here as h where h.table_schema = q.table_schema and h.table_name = q.table_name
        ) and not exists (
            select from benefits.source as d where d.table_schema = q.table_schema and d.table_name = q.table_name
        )
        order by 1
    ),
    'publication', (
        select jsonb_build_object(
            'publishes_all', p.pubinsert and p.pubupdate and p.pubdelete,
            'via_root', p.pubviaroot,
            'tables_of_ours_missing', array(
                select o.name from unnest(array['request', 'failed', 'description', 'picklist_value', 'level_package']) as o (name)
                where not exists (select from published as t where t.schemaname = 'benefits' and t.tablename = o.name)
            ),
            'tables_not_described', array(
                select format('%I.%I', t.schemaname, t.tablename) from published as t
                where t.schemaname <> 'benefits' and not exists (
                    select from described as d where d.table_schema = t.schemaname and d.table_name = t.tablename
                )
                order by 1
            )
        )
        from pg_publication as p
        where p.pubname = $1::text::name
    ),
    'sources', (
        select coalesce(jsonb_agg(jsonb_build_object(
            'table', d.name,
            'is_gone', d.now is null,
            'is_swapped', d.now is not null and d.now <> d.table_oid,
            'columns_gone', array(
                select m from unnest(d.mapped_columns) as m
                where d.now is not null and not exists (
                    select from pg_attribute as a
                    where a.attrelid = d.now and a.attname = m and a.attnum > 0 and not a.attisdropped
                )
            ),
            'has_identity', k.is_full or k.columns <> '{}',
            'same_key', d.now is null or k.columns = d.key_columns,
            'partitions_without_identity', array(
                select p.name
                from below as b
                inner join identified as p on p.oid = b.oid
                where b.source_id = d.source_id and p.relispartition and p.relkind = 'r' and not p.is_full
                    and not p.columns @> d.key_columns
                order by 1
            ),
            'children', array(
                select p.name
                from below as b
                inner join identified as p on p.oid = b.oid
                where b.source_id = d.source_id and not p.relispartition
                order by 1
            ),
            'employee_key', d.employee_key,
            'is_indexed', d.employee_key is null or exists (
                select from pg_index as i
                inner join pg_attribute as a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
                where i.indrelid = d.now and i.indisvalid and a.attname = d.employee_key
            ),
            'effective_from', d.effective_from,
            -- Looked for every few seconds: by an index that begins with the column, or GiST on a range.
            'instants', (
                select case
                    when y.typname in ('timestamp', 'timestamptz') then 'btree'
                    when y.typname in ('tsrange', 'tstzrange') then 'gist'
                end
                from pg_attribute as a
                inner join pg_type as t on t.oid = a.atttypid
                inner join pg_type as y on y.oid = case when t.typtype = 'd' then t.typbasetype else t.oid end
                where a.attrelid = d.now and a.attname = d.effective_from and d.employee_key is not null
            ),
            'instants_indexed', exists (
                select from pg_index as i
                inner join pg_class as x on x.oid = i.indexrelid
                inner join pg_am as m on m.oid = x.relam
                inner join pg_attribute as a on a.attrelid = d.now and a.attname = d.effective_from
                where i.indrelid = d.now and i.indisvalid and (
                    (m.amname = 'btree' and i.indkey[0] = a.attnum) or (m.amname = 'gist' and a.attnum = any (i.indkey))
                )
            ),
            -- Before the first analyze the number of rows is -1: pages tell enough then.
            'rows', coalesce(greatest(c.reltuples::bigint, c.relpages::bigint * 10, 0), 0),
            'is_published', exists (
                select from published as t where t.schemaname = d.table_schema and t.tablename = d.table_name
            ),
            'is_filtered', exists (
                select from published as t
                where t.schemaname = d.table_schema and t.tablename = d.table_name and t.rowfilter is not null
            ),
            'columns_not_published', array(
                select m from unnest(d.mapped_columns) as m
                where exists (
                    select from published as t
                    where t.schemaname = d.table_schema and t.tablename = d.table_name and not m = any (t.attnames)
                )
            ),
            'owner_can_read', d.now is null or (
                has_table_privilege('benefits_owner', d.now, 'select')
                and has_schema_privilege('benefits_owner', d.table_schema, 'usage')
            ),
            'has_row_security', coalesce(c.relrowsecurity, false) and not (
                select r.rolbypassrls or r.rolsuper from pg_roles as r where r.rolname = 'benefits_owner'
            )
        ) order by d.source_id), '[]')
        from described as d
        left join pg_class as c on c.oid = d.now
        left join identified as k on k.oid = d.now
    ),
    'levels', array(select package_id from benefits.level_package order by 1),
    'translations', (
        select coalesce(jsonb_agg(jsonb_build_array(v.field, v.hr_value, v.benefits_value) order by v.field, v.hr_value), '[]')
        from benefits.picklist_value as v
    ),
    'schema_bytes', (
        select coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint
        from pg_class as c where c.relnamespace = 'benefits'::regnamespace and c.relkind in ('r', 'm')
    ),
    'enrolled', (select count(*) from benefits.enrolment)
)
from benefits.site as s
