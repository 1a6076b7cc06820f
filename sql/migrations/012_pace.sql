-- What a fast delivery needs of the ledger.

-- A mass change is judged in pages of its people. The table is ours and small, and the exchange is over in moments.
-- squawk-ignore require-concurrent-index-deletion
drop index benefits.pending_batch_ix;
-- squawk-ignore require-concurrent-index-creation
create index pending_batch_ix on benefits.pending (batch, employee_id) where batch is not null;
