//! The databases that the duties are tested on.

use rstest_reuse::template;

#[template]
#[rstest]
#[ignore = "needs PostgreSQL: run tests/run"]
#[case::postgres(Backend::Postgres)]
#[case::sqlite(Backend::Sqlite)]
#[tokio::test(flavor = "multi_thread")]
async fn on_both(#[case] backend: Backend) {}
