-- The described tables.
select
    s.source_id, s.table_schema::text, s.table_name::text, s.employee_key::text, s.starter_flag::text,
    s.mapped_columns::text[], s.key_columns::text[], s.is_root, s.tracked
from benefits.source as s
order by s.source_id
