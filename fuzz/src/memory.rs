//! The memory that a call takes, as the allocator counts it in this thread.

/// Return the result of a call, and the bytes that the call held at a time at most.
pub fn peak<T>(call: impl FnOnce() -> T) -> (T, u64) {
    let mut result = None;
    let counted = allocation_counter::measure(|| result = Some(call()));
    (result.expect("the call has returned"), counted.bytes_max)
}
