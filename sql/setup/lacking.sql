-- What the login that is to run setup lacks, each with what mends it; no row where nothing is lacking.
-- $1 the roles that setup makes; $2 the publication.
with me as (
    select
        r.rolname as name, r.rolsuper as is_superuser, r.rolcreaterole as makes_roles, r.rolreplication as replicates,
        current_setting('server_version_num')::integer / 10000 as major,
        to_regrole('rds_replication') is not null as is_rds
    from pg_roles as r
    where r.rolname = current_user
),

missing as (
    select w.name from unnest($1::text[]) as w (name) where not exists (select from pg_roles as r where r.rolname = w.name)
)

select f.lacks, f.remedy
from me
cross join lateral (
    select
        1 as n,
        'CREATEROLE, to make ' || string_agg(m.name, ', ' order by m.name) as lacks,
        format('alter role %I createrole;', me.name) as remedy
    from missing as m
    where not me.makes_roles
    having count(*) > 0
    union all
    select
        2,
        case
            when me.major < 16 then 'the power to make a login with REPLICATION, which before PostgreSQL 16 is a superuser''s alone'
            else 'REPLICATION, which alone lets it make another login with REPLICATION'
        end,
        'create role benefits_reader login replication;'
        || case when me.major < 16 then '' else format('   or: alter role %I replication;', me.name) end
    from missing as m
    where m.name = 'benefits_reader' and me.makes_roles and not me.is_rds and (me.major < 16 or not me.replicates)
    union all
    select
        3,
        'CREATE on the database, to make the schema benefits and the publication',
        format('grant create on database %I to %I;', current_database(), me.name)
    where not has_database_privilege(current_database(), 'create')
        and (
            to_regnamespace('benefits') is null
            or not exists (select from pg_publication as p where p.pubname = $2::text)
        )
    union all
    select
        4,
        format('membership of %s, as which it sets up', r.rolname),
        format('grant %I to %I;', r.rolname, me.name)
    from pg_roles as r
    where r.rolname = 'benefits_owner' and not pg_has_role(current_user, r.oid, 'usage')
        and case when me.major < 16 then not me.makes_roles else not pg_has_role(current_user, r.oid, 'member with admin option') end
    union all
    select
        5,
        format('the ownership of publication %s, to add tables to it', p.pubname),
        format('alter publication %I owner to %I;', p.pubname, me.name)
    from pg_publication as p
    where p.pubname = $2::text and not pg_has_role(current_user, p.pubowner, 'usage')
) as f
where not me.is_superuser
order by f.n
