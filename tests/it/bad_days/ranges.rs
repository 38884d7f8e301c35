//! Ranges of the log add up over the years. Statements name the range of their rows, so that their plans and locks
//! are the same with a hundred ranges as with two.
//!
//! A trigger counts the locks inside each statement. Locks taken by the planner are among them where the plan is made
//! anew: planning a statement on the whole log locks every range.

use meta_dispatch::store::Change;

use crate::support::store::{Backend, Fixture, HOUR, bulk, first_claim, retry, sent, text};

const MANY: i64 = 100;

/// Notes how many tables and indexes are locked by each statement that adds to the queue.
const COUNT_LOCKS: &str = "
    create table seen (place text not null, relations bigint not null);
    create function look() returns trigger language plpgsql as $$
    begin
        insert into seen
        select tg_table_name, count(*) from pg_locks where pid = pg_backend_pid() and locktype = 'relation';
        return new;
    end $$;
    create trigger look before insert on claim for each row execute function look();
    create trigger look before insert on work for each row execute function look()";

impl Fixture {
    /// Makes as many ranges; the rows to come are of the last one.
    async fn make_ranges(&self, count: i64) {
        let last = count - 1;
        let make = format!(
            "do $$ begin
                 for n in 0..{last} loop
                     perform setval('cdls_id_seq', n * 10000000 + 1);
                     perform cdls_ensure_partitions();
                 end loop;
             end $$"
        );
        self.execute(&make).await;
        let ranges = "select count(*) from pg_inherits where inhparent = 'cdls'::regclass";
        assert_eq!(self.number(ranges).await, count);
    }

    /// Tables and indexes that the statement before had locked when it added to a table of the queue.
    async fn locked(&self, table: &str) -> i64 {
        self.number(&format!("select max(relations) from seen where place = '{table}'")).await
    }

    async fn forget_locks(&self) {
        self.execute("delete from seen").await;
    }

    /// The locks of each statement on a message's way.
    async fn locks(&self) -> Vec<(&'static str, i64)> {
        let mut locks = Vec::new();
        for (name, submission) in [("a record", text("ann")), ("one of a campaign", bulk("bob", "spring"))] {
            let ends = self.claimed(submission.clone()).await;
            let begins = self.log_one(submission).await;
            self.forget_locks().await;
            let change = Change::waiting(ends, 1, sent());
            let recorded = self.record("w", &[change], &[first_claim(begins)]).await;
            assert_eq!((recorded.changed, recorded.claimed), (vec![true], vec![true]));
            locks.push((name, self.locked("claim").await));
            assert!(self.change(begins, sent()).await);
        }
        self.forget_locks().await;
        self.log_one(text("cleo")).await;
        locks.push(("an insert", self.locked("work").await));
        self.called(text("dan"), retry(HOUR)).await;
        self.all_due().await;
        self.forget_locks().await;
        assert_eq!(self.promote().await.work.len(), 1);
        locks.push(("a promotion", self.locked("work").await));
        locks
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: run tests/run"]
async fn add_no_locks_to_statements() {
    let fixture = Fixture::create(Backend::Postgres).await;
    fixture.execute(COUNT_LOCKS).await;
    fixture.make_ranges(2).await;
    let few = fixture.locks().await;
    fixture.make_ranges(MANY).await;
    let first = fixture.locks().await;
    let again = fixture.locks().await;
    for (((name, few), (_, first)), (_, again)) in few.into_iter().zip(first).zip(again) {
        assert!(few > 0, "{name}");
        assert!(first <= few + 2, "{name}: {few} locks with 2 ranges, {first} with {MANY}");
        assert!(again <= few + 2, "{name}: {few} locks with 2 ranges, {again} with {MANY}");
    }
}
