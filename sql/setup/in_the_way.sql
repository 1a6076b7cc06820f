-- What teardown would break, each with what is to be done first; no row where nothing is in the way. $1 the slot.
with recursive ours as (
    select d.classid, d.objid
    from pg_depend as d
    inner join pg_namespace as n on n.oid = d.refobjid
    where d.refclassid = 'pg_namespace'::regclass and n.nspname = 'benefits'
    union
    -- Parts of an object: its indexes, rules, triggers, row type.
    select d.classid, d.objid
    from ours as o
    inner join pg_depend as d on d.refclassid = o.classid and d.refobjid = o.objid and d.deptype <> 'n'
),

needing as (
    -- It is a view's rule that needs something; what is lost is the view.
    select
        d.refclassid, d.refobjid, d.refobjsubid,
        case when r.oid is null then d.classid else 'pg_class'::regclass::oid end as classid,
        coalesce(r.ev_class, d.objid) as objid,
        case when r.oid is null then d.objsubid else 0 end as objsubid
    from pg_depend as d
    left join pg_rewrite as r on d.classid = 'pg_rewrite'::regclass and r.oid = d.objid and r.ev_type = '1'
    where d.deptype = 'n' and not exists (select from ours as k where k.classid = d.classid and k.objid = d.objid)
),

-- What stands on the schema without being of it, and what stands on that: "cascade" takes all of it.
lost as (
    select n.classid, n.objid, n.objsubid
    from ours as o
    inner join needing as n on n.refclassid = o.classid and n.refobjid = o.objid
    union
    select n.classid, n.objid, n.objsubid
    from lost as l
    inner join needing as n on n.refclassid = l.classid and n.refobjid = l.objid and l.objsubid in (0, n.refobjsubid)
)

select format('the slot %s is in use by process %s: stop benefits-sync first', s.slot_name, s.active_pid) as what
from pg_replication_slots as s
where s.slot_name = $1::text::name and s.database = current_database() and s.active_pid is not null
union all
select format('%s would be lost with schema benefits: drop it first', pg_describe_object(l.classid, l.objid, l.objsubid))
from lost as l
order by 1
