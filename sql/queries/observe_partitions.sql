-- Whether partitions of described tables have gone, come with rows, or got other storage since this was asked last: TRUNCATE,
-- DROP, DETACH and ATTACH of one are not in the WAL that is published. A doubt is noted with it; the lightest, so that none is
-- outdone. No partition is locked, nor waited for, but one that is new.
with recursive tree as (
    select s.table_oid::oid as id from benefits.source as s
    inner join pg_class as c on c.oid = s.table_oid and c.relkind = 'p'
    union
    select i.inhrelid from tree as t inner join pg_inherits as i on i.inhparent = t.id
),
leaf as materialized (
    select t.id, pg_relation_filenode(t.id::regclass) as storage
    from tree as t inner join pg_class as c on c.oid = t.id and c.relkind = 'r'
),
gone as (
    delete from benefits.partition as p where not exists (select from leaf as l where l.id = p.table_oid) returning p.table_oid
),
emptied as (
    update benefits.partition as p set storage = l.storage
    from leaf as l where l.id = p.table_oid and l.storage <> p.storage
    returning p.table_oid
),
come as (
    insert into benefits.partition (table_oid, storage)
    select l.id, l.storage
    from leaf as l
    where l.storage is not null and not exists (select from benefits.partition as p where p.table_oid = l.id)
    returning table_oid
),
changed as (
    select g.table_oid from gone as g
    union all
    select e.table_oid from emptied as e
    union all
    select c.table_oid from come as c where pg_relation_size(c.table_oid) > 0
)
update benefits.site set doubt_count = doubt_count + 1, doubt = coalesce(doubt, 'partitions')
where exists (select from changed)
returning (select count(*) from changed) as changed
