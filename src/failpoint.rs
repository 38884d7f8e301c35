//! Named steps at which a process can be made to die, for the chaos harness and the tests of crashes.
//!
//! With the feature `failpoints`, `META_DISPATCH_FAILPOINT=name:n` ends the process, without a last word, when it comes to the
//! step for the nth time; `name:n:panic` panics there instead. Without the feature, which no release build has, the steps
//! are compiled out.

#[cfg(feature = "failpoints")]
#[expect(clippy::disallowed_methods, reason = "no setting: no release build has it")]
mod armed {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    struct Step {
        name: String,
        left: AtomicU64,
        panics: bool,
    }

    static STEP: LazyLock<Option<Step>> = LazyLock::new(|| {
        let wish = std::env::var("META_DISPATCH_FAILPOINT").ok()?;
        let mut parts = wish.split(':');
        let name = parts.next()?.to_owned();
        let nth = parts.next().and_then(|nth| nth.parse().ok()).unwrap_or(1);
        Some(Step { name, left: AtomicU64::new(nth), panics: parts.next() == Some("panic") })
    });

    pub fn hit(name: &str) {
        if let Some(step) = STEP.as_ref()
            && step.name == name
            && step.left.fetch_sub(1, Ordering::Relaxed) == 1
        {
            assert!(!step.panics, "failpoint {name}");
            // No destructors, no flushing: as near to kill -9 as a process can do to itself at an exact step.
            std::process::abort();
        }
    }
}

#[cfg(feature = "failpoints")]
pub use armed::hit;

/// Comes to a step.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn hit(_: &str) {}
