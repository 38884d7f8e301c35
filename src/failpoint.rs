//! Named steps at which a debug build can be made to die, and defects it can be given, for the chaos harness.
//!
//! `META_DISPATCH_FAILPOINT=name:n` ends the process, without a last word, when it comes to the step for the nth time;
//! `name:n:panic` panics there instead.
//! `META_DISPATCH_DEFECT=name` switches on one seeded defect: the harness shows that it would notice it. Never in a
//! release build: there both are compiled out.

#[cfg(debug_assertions)]
#[expect(clippy::disallowed_methods, reason = "no setting: nothing of this is in a release build")]
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
    static DEFECT: LazyLock<Option<String>> =
        LazyLock::new(|| std::env::var("META_DISPATCH_DEFECT").ok().filter(|name| !name.is_empty()));

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

    pub fn defect(name: &str) -> bool {
        DEFECT.as_deref() == Some(name)
    }
}

#[cfg(debug_assertions)]
pub use armed::{defect, hit};

/// Comes to a step.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn hit(_: &str) {}

/// Whether this process has the defect.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub const fn defect(_: &str) -> bool {
    false
}
