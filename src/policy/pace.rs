//! How fast a line may go.
