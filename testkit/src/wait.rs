//! Waiting for a condition: polled, never slept for.

use std::time::Duration;

const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Polls until `look` finds something; the last state it has seen if it finds nothing within `patience`.
pub async fn until<T, F, Fut>(patience: Duration, mut look: F) -> Result<T, String>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, String>>,
{
    let mut seen = String::new();
    let polling = async {
        let mut tick = tokio::time::interval(LOOK_EVERY);
        loop {
            tick.tick().await;
            match look().await {
                Ok(found) => return found,
                Err(state) => seen = state,
            }
        }
    };
    let found = tokio::time::timeout(patience, polling).await;
    found.map_err(|_| seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ends_when_something_is_found() {
        let mut looks = 0;
        let found = until(Duration::from_secs(10), || {
            looks += 1;
            let look = looks;
            async move { if look == 3 { Ok(look) } else { Err(format!("look {look}")) } }
        })
        .await;
        assert_eq!(found, Ok(3));
    }

    #[tokio::test]
    async fn says_what_it_saw_last() {
        let found = until(Duration::from_millis(50), || async { Err::<(), _>("nothing".to_owned()) }).await;
        assert_eq!(found, Err("nothing".to_owned()));
    }
}
