-- Child rows that left their employee: who it was. $1 sources, $2 row keys.
delete from benefits.row_owner as w
using unnest($1::integer[], $2::text[]) as o (source_id, row_key)
where w.source_id = o.source_id and w.row_key = o.row_key
returning w.employee_id
