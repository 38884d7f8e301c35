//! This process's batches of claims, and the end of each: its row in the queue can be removed then.

use std::collections::HashMap;

use crate::domain::RowId;

/// The batches of claims that are open.
#[derive(Default)]
pub struct OpenClaims {
    last_number: i64,
    /// Calls of each batch that have not ended.
    left: HashMap<i64, usize>,
    batch_of: HashMap<(RowId, i32), i64>,
    ended: Vec<i64>,
}

impl OpenClaims {
    /// Return the number of the next batch.
    pub fn number(&mut self) -> i64 {
        self.last_number += 1;
        self.last_number
    }

    /// Record the claims of a batch that were made, with the fence of each.
    pub fn made(&mut self, number: i64, claims: impl Iterator<Item = (RowId, i32)>) {
        let before = self.batch_of.len();
        self.batch_of.extend(claims.map(|claim| (claim, number)));
        let made = self.batch_of.len() - before;
        if made > 0 {
            self.left.insert(number, made);
        }
    }

    pub fn is_open(&self, id: RowId, fence: i32) -> bool {
        self.batch_of.contains_key(&(id, fence))
    }

    /// Record that the end of this call is written.
    pub fn call_ended(&mut self, id: RowId, fence: i32) {
        let Some(number) = self.batch_of.remove(&(id, fence)) else { return };
        let Some(left) = self.left.get_mut(&number) else { return };
        *left -= 1;
        if *left == 0 {
            self.left.remove(&number);
            self.ended.push(number);
        }
    }

    /// Return the batches whose calls have all ended, and that are not removed yet.
    pub fn ended(&self) -> &[i64] {
        &self.ended
    }

    /// Forget the first `count` ended batches, which have been removed.
    pub fn removed(&mut self, count: usize) {
        self.ended.drain(..count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_ends_with_the_last_of_its_calls() {
        let mut claims = OpenClaims::default();
        let number = claims.number();
        claims.made(number, [(RowId(1), 1), (RowId(2), 4)].into_iter());
        claims.call_ended(RowId(1), 1);
        assert!(claims.ended().is_empty() && claims.is_open(RowId(2), 4));
        claims.call_ended(RowId(2), 3);
        assert!(claims.ended().is_empty(), "another call of the row");
        claims.call_ended(RowId(2), 4);
        assert_eq!(claims.ended(), [number]);
        claims.removed(1);
        assert!(claims.ended().is_empty());
    }
}
