//! The two statements by which the ledger learns of an employee in hand: that an update was accepted, or that they are
//! marked after all. Each is made against a ledger that somebody else has changed since the employee was loaded.

use std::time::{Instant, SystemTime};

use benefits_sync::ledger::Session;
use benefits_sync::ledger::in_hand::{self, Change, Delivered, Taken, ToTake};
use benefits_sync::ledger::work::{self, Claim, IntentKind, Work};
use benefits_sync::record::Field;

use crate::for_each_major;
use crate::support::site::Site;

const OURS: i64 = 1_000;
const THEIRS: i64 = 2_000;

/// Somebody else's mark, with further columns of theirs.
async fn mark(site: &Site, columns: &str, values: &str) {
    let sql = format!(
        "insert into benefits.pending (employee_id, cause, changed_at, last_changed_at{columns}) \
         values ('1', 'change', now(), now(){values})"
    );
    site.hr.batch_execute(&sql).await.unwrap();
}

async fn load(session: &Session) -> Option<Work> {
    let wanted = work::Wanted { employee_id: "1".to_owned(), in_hand: true };
    work::load(session, &[wanted]).await.unwrap().pop()
}

fn accepted(work: &Work) -> Delivered {
    Delivered {
        employee_id: work.employee_id.clone(),
        place: work.place.clone(),
        row_version: work.row_version.clone(),
        version: work.version + 5,
        acknowledged: work.acknowledged.with_unknown([Field::Surname].into_iter().collect()),
        fields: [Field::Surname].into_iter().collect(),
        request_id: None,
        answered: Instant::now(),
        changed_at: SystemTime::now(),
    }
}

async fn is_recorded(session: &Session, work: &Work) -> bool {
    !in_hand::record(session, &[accepted(work)]).await.unwrap().is_empty()
}

fn sent() -> Claim {
    let fields = [Field::Surname].into_iter().collect();
    Claim { kind: IntentKind::Update, version: 77, fields, hash: vec![7; 16] }
}

async fn take(session: &Session, claim: Option<Claim>, in_full: bool) -> Option<Taken> {
    let change = Change { first: SystemTime::now(), last: SystemTime::now() };
    let to_take = ToTake { employee_id: "1".to_owned(), change, claim, in_full, mass_change: None };
    in_hand::take_into_ledger(session, OURS, &[to_take]).await.unwrap().pop().unwrap()
}

/// Sequence, claim, intent's version, and whether everything is sent.
async fn pending(site: &Site) -> (i64, Option<i64>, Option<i64>, bool) {
    let sql = "select seq, claim, intent_version, in_full from benefits.pending";
    let row = site.hr.query_one(sql, &[]).await.unwrap();
    (row.get(0), row.get(1), row.get(2), row.get(3))
}

for_each_major! {
    async fn who_is_marked_after_all_is_judged_with_their_mass_change_unless_it_is_over(major: u32) {
        let (site, session) = Site::at_rest(major).await;
        let change = Change { first: SystemTime::now(), last: SystemTime::now() };
        let marked = async |batch: i64, claim: Option<Claim>| -> (Option<i64>, bool) {
            site.hr.batch_execute("delete from benefits.pending").await.unwrap();
            let employee_id = "1".to_owned();
            let to_take = ToTake { employee_id, change, claim, in_full: false, mass_change: Some(batch) };
            in_hand::take_into_ledger(&session, OURS, &[to_take]).await.unwrap();
            let row = site.hr.query_one("select batch, bulk from benefits.pending", &[]).await.unwrap();
            (row.get(0), row.get(1))
        };
        let sql = "insert into benefits.mass_change (complete) values (false) returning batch";
        let batch: i64 = site.hr.query_one(sql, &[]).await.unwrap().get(0);
        assert_eq!(marked(batch, None).await, (Some(batch), true));
        assert_eq!(marked(batch, Some(sent())).await, (None, true), "what is on its way has been judged");
        site.hr.batch_execute("update benefits.mass_change set complete = true").await.unwrap();
        assert_eq!(marked(batch, None).await, (None, true), "it may be judged and forgotten");
        site.hr.batch_execute("delete from benefits.mass_change").await.unwrap();
        assert_eq!(marked(batch, None).await, (None, true));
    }

    async fn an_accepted_update_is_recorded_with_its_version_and_what_the_platform_holds(major: u32) {
        let (site, session) = Site::at_rest(major).await;
        let work = load(&session).await.unwrap();
        assert!(work.is_unmarked() && work.is_in_order());
        let lines = site.history("1").await.len();
        assert!(is_recorded(&session, &work).await);
        let now = load(&session).await.unwrap();
        assert_eq!(now.version, work.version + 5);
        assert_eq!((work.acknowledged.unknown().len(), now.acknowledged.get(Field::Surname)), (0, None));
        assert_eq!(site.history("1").await.len(), lines + 1);
        assert!(!is_recorded(&session, &work).await, "the row is another one now");
    }

    async fn an_accepted_update_is_not_recorded_over_what_was_recorded_since_it_was_loaded(major: u32) {
        let (site, session) = Site::at_rest(major).await;
        let work = load(&session).await.unwrap();
        // Nothing that tells by its value.
        site.hr.batch_execute("update benefits.enrolment set outcome = outcome").await.unwrap();
        assert!(!is_recorded(&session, &work).await);
        assert_eq!(load(&session).await.unwrap().version, work.version);
    }

    async fn an_accepted_update_is_not_recorded_while_another_instance_delivers(major: u32) {
        let (site, session) = Site::at_rest(major).await;
        let work = load(&session).await.unwrap();
        mark(&site, ", claim", &format!(", {THEIRS}")).await;
        assert!(!is_recorded(&session, &work).await);
        // A mark that nobody delivers yet says nothing against it.
        site.hr.batch_execute("update benefits.pending set claim = null").await.unwrap();
        let before = pending(&site).await;
        assert!(is_recorded(&session, &work).await);
        assert_eq!(pending(&site).await, before, "and the mark stays");
    }

    async fn who_is_marked_after_all_is_ours_with_the_write_that_is_on_its_way(major: u32) {
        let (site, session) = Site::at_rest(major).await;
        let taken = take(&session, Some(sent()), false).await.unwrap();
        let (seq, claim, version, in_full) = pending(&site).await;
        assert_eq!(taken, Taken { seq, ours: true });
        assert_eq!((claim, version, in_full), (Some(OURS), Some(77), false));
        let work = work::load_to_judge(&session, vec!["1".to_owned()]).await.unwrap().pop().unwrap();
        assert_eq!(work.claim, Some(sent()));
        // Our own claim is for another write.
        let other = Claim { version: 78, ..sent() };
        assert!(!take(&session, Some(other), false).await.unwrap().ours);
        assert!(pending(&site).await.3, "and that one is known to nobody");
    }

    async fn who_is_marked_after_all_without_a_write_is_nobodys_and_sent_in_full_where_that_is_said(major: u32) {
        let (site, session) = Site::at_rest(major).await;
        assert!(!take(&session, None, false).await.unwrap().ours);
        let (first, claim, version, in_full) = pending(&site).await;
        assert_eq!((claim, version, in_full), (None, None, false));
        take(&session, None, true).await.unwrap();
        let (second, .., in_full) = pending(&site).await;
        assert!(second > first && in_full);
        take(&session, None, false).await.unwrap();
        assert!(pending(&site).await.3, "it stays so");
    }

    async fn a_write_that_meets_another_mark_is_not_ours_and_everything_is_sent(major: u32) {
        let (site, session) = Site::at_rest(major).await;
        for claim in ["null", "2000", "1000"] {
            site.hr.batch_execute("delete from benefits.pending").await.unwrap();
            mark(&site, ", claim, intent_kind, intent_version, ending", &format!(", {claim}, 'update', 76, '\\x01'")).await;
            let before = pending(&site).await;
            let taken = take(&session, Some(sent()), false).await.unwrap();
            let after = pending(&site).await;
            assert_eq!(taken, Taken { seq: after.0, ours: false }, "{claim}");
            assert!(after.0 > before.0, "{claim}: marked again");
            assert_eq!((after.1, after.2, after.3), (before.1, before.2, true), "{claim}");
            let judged = site.hr.query_one("select ending is not null from benefits.pending", &[]).await.unwrap();
            assert!(!judged.get::<_, bool>(0), "{claim}: another change is judged anew");
        }
    }

    async fn who_is_delivered_elsewhere_waits_or_is_gone_is_not_loaded_in_hand(major: u32) {
        let (site, session) = Site::at_rest(major).await;
        mark(&site, ", claim", &format!(", {THEIRS}")).await;
        assert!(load(&session).await.is_none(), "another instance delivers");
        site.hr.batch_execute("update benefits.pending set claim = null, not_before = now() + interval '1 hour'").await.unwrap();
        assert!(load(&session).await.is_none(), "to be tried later");
        site.hr.batch_execute("update benefits.pending set not_before = null, hold_id = 1, hold_seq = seq").await.unwrap();
        assert!(load(&session).await.is_none(), "held");
        site.hr.batch_execute("update benefits.pending set hold_id = null, hold_seq = null").await.unwrap();
        assert!(!load(&session).await.unwrap().is_unmarked());
        site.hr.batch_execute("delete from benefits.pending; update benefits.site set doubt = 'platform'").await.unwrap();
        assert!(load(&session).await.is_none(), "the ledger may have lost its tail");
        site.hr.batch_execute("update benefits.site set doubt = null; update benefits.enrolment set transferred_to = '2'").await.unwrap();
        assert!(load(&session).await.is_none(), "their account is another's");
        assert_eq!(take(&session, Some(sent()), true).await, None);
    }
}
