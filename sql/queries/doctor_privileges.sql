-- Who may do what, too little and too much. The session is the service's; $1 the reader's login.
with ours as (
    select p.oid, p.oid::regprocedure::text as name, p.proname, p.proconfig
    from pg_proc as p
    where p.pronamespace = 'benefits'::regnamespace and p.prosecdef
)
select jsonb_build_object(
    'service', current_user,
    'reader_exists', exists (select from pg_roles where rolname = $1::text::name),
    'reader_replicates', coalesce(
        (
            select r.rolreplication or r.rolsuper
                -- Managed services give it by a role of their own.
                or exists (select from pg_roles as m where m.rolname = 'rds_replication' and pg_has_role(r.oid, m.oid, 'member'))
            from pg_roles as r
            where r.rolname = $1::text::name
        ),
        false
    ),
    'reader_powers', array(
        select p.name
        from pg_roles as r
        cross join lateral (values
            (r.rolsuper, 'SUPERUSER'), (r.rolcreaterole, 'CREATEROLE'), (r.rolcreatedb, 'CREATEDB'), (r.rolbypassrls, 'BYPASSRLS')
        ) as p (has, name)
        where r.rolname = $1::text::name and p.has
    ),
    'service_powers', array(
        select p.name
        from pg_roles as r
        cross join lateral (values
            (r.rolsuper, 'SUPERUSER'), (r.rolreplication, 'REPLICATION'), (r.rolcreaterole, 'CREATEROLE'),
            (r.rolcreatedb, 'CREATEDB'), (r.rolbypassrls, 'BYPASSRLS')
        ) as p (has, name)
        where r.rolname = current_user and p.has
    ),
    'service_reads', array(
        select format('%I.%I', s.table_schema, s.table_name)
        from benefits.source as s
        inner join pg_namespace as n on n.nspname = s.table_schema
        inner join pg_class as c on c.relnamespace = n.oid and c.relname = s.table_name
        where has_table_privilege(current_user, c.oid, 'select, insert, update, delete') and not (select rolsuper from pg_roles where rolname = current_user)
        order by 1
    ),
    'service_lacks', array(
        select format('grant %s on benefits.%I to benefits_service', w.privilege, t.name)
        from unnest(array[
            'site', 'employee', 'enrolment', 'pending', 'request', 'history', 'row_owner', 'checkpoint'
        ]) as t (name)
        cross join unnest(array['select', 'insert', 'update', 'delete']) as w (privilege)
        where not has_table_privilege(format('benefits.%I', t.name), w.privilege)
            -- History is only ever added to.
            and not (t.name = 'history' and w.privilege in ('update', 'delete'))
        union all
        select format('grant execute on function %s to benefits_service', o.name)
        from ours as o
        where (
            o.proname like 'read\_%' or o.proname in ('find_in_roster', 'replication_status', 'oldest_transactions', 'explain_record', 'explain_search')
        ) and not has_function_privilege(o.oid, 'execute')
        union all
        select 'grant usage on sequence benefits.claim_token to benefits_service'
        where not has_sequence_privilege('benefits.claim_token', 'usage')
    ),
    'owner_logs_in', coalesce((select rolcanlogin from pg_roles where rolname = 'benefits_owner'), false),
    'owner_powers', array(
        select p.name
        from pg_roles as r
        cross join lateral (values
            (r.rolsuper, 'SUPERUSER'), (r.rolreplication, 'REPLICATION'), (r.rolcreaterole, 'CREATEROLE')
        ) as p (has, name)
        where r.rolname = 'benefits_owner' and p.has
    ),
    'owner_sees_sessions', pg_has_role('benefits_owner', 'pg_read_all_stats', 'usage'),
    'open_to_all', array(
        select o.name from ours as o
        where exists (
            select from pg_proc as p cross join lateral aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) as a
            where p.oid = o.oid and a.grantee = 0
        )
        order by 1
    ),
    -- Where names are looked for, and who else than the schema's owner may make something there, as benefits.open_schemas says.
    'open_schemas', array(
        select distinct jsonb_build_array(quote_ident(n.nspname), case a.grantee when 0 then 'public' else quote_ident(r.rolname) end)
        from ours as o
        cross join lateral unnest(o.proconfig) as c (setting)
        inner join pg_namespace as n
            on c.setting like 'search\_path=%' and quote_ident(n.nspname) = any (string_to_array(split_part(c.setting, '=', 2), ', '))
        cross join lateral aclexplode(n.nspacl) as a
        left join pg_roles as r on r.oid = a.grantee
        where a.privilege_type = 'CREATE' and a.grantee <> n.nspowner and not coalesce(r.rolsuper, false)
            and r.rolname is distinct from 'pg_database_owner'
            and a.grantee <> (select d.datdba from pg_database as d where d.datname = current_database())
        order by 1
    )
)
