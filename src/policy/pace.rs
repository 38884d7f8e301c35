//! How fast a line may go: limits, bursts, and pauses.
