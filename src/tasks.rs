//! The loop of long-lived tasks: a job, repeated until a stop. Never here: the jobs.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// Run a job now, and again after each pause that it returns, until `stop`. `stop` ends a pause at once; a
/// job that has begun is finished first.
pub async fn every<F>(stop: CancellationToken, mut job: impl FnMut() -> F)
where
    F: Future<Output = Duration>,
{
    loop {
        let pause = job().await;
        if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn repeats_a_job_until_the_stop() {
        let stop = CancellationToken::new();
        let runs = Cell::new(0);
        let began = tokio::time::Instant::now();
        every(stop.clone(), || async {
            runs.set(runs.get() + 1);
            if runs.get() == 3 {
                stop.cancel();
            }
            Duration::from_secs(10)
        })
        .await;
        assert_eq!(runs.get(), 3);
        assert_eq!(began.elapsed(), Duration::from_secs(20));
    }
}
