//! A model of a row's life beside the real SQL of both stores: random histories of claims, results of every kind (late
//! and repeated ones too), lost leases, dead workers, due and expired rows.
//!
//! After each step the log must say what the model says. Besides, only a claim raises `fence`; final rows never
//! change; deliveries − 1 ≤ `ambiguous_attempts`; every row that is not final stands in the queue and is found there; a
//! campaign's counters are what its rows are. A failing history is shrunk and printed with its seed; `MODEL_SEED` runs it
//! again.
//!
//! The owner of a partition is disciplined, as dispatch is: it claims no row that has an open claim or waits for a time. All
//! else is the store's to refuse.

mod agreement;
mod history;
mod row;
mod world;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use rstest::rstest;

use crate::support::store::{Backend, Fixture};
use history::step;
use world::World;

#[expect(clippy::disallowed_methods, reason = "a failing history is run again by its seed")]
fn seed() -> u64 {
    std::env::var("MODEL_SEED").ok().map_or_else(rand::random, |seed| seed.parse().expect("a number"))
}

#[rstest]
#[ignore = "needs PostgreSQL: run tests/run"]
#[case::postgres(Backend::Postgres, 24)]
#[case::sqlite(Backend::Sqlite, 48)]
#[tokio::test(flavor = "multi_thread")]
async fn random_histories_agree_with_the_model(#[case] backend: Backend, #[case] histories: u32) {
    let fixture = Fixture::create(backend).await;
    let (store, seed) = (fixture.store.clone(), seed());
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config =
        Config { cases: histories, max_shrink_iters: 200, failure_persistence: None, ..Config::default() };
    let runtime = tokio::runtime::Handle::current();
    let run = tokio::task::spawn_blocking(move || {
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let mut runner = TestRunner::new_with_rng(config, rng);
        runner.run(&prop::collection::vec(step(), 1..60), |history| {
            runtime.block_on(async {
                let mut world = World::new(store.clone());
                world.own(0, false).await;
                world.log(false, false).await;
                for step in &history {
                    world.step(step).await?;
                }
                world.comes_to_an_end().await
            })
        })
    });
    if let Err(failure) = run.await.expect("the model does not panic") {
        panic!("MODEL_SEED={seed}: {failure}");
    }
}
