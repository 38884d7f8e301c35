//! This process's batches of claims, and when each has ended: its row in the queue can be removed then.

use std::collections::HashMap;

use crate::message::MessageId;

/// The batches of claims that are open.
#[derive(Default)]
pub struct Claims {
    last_number: i64,
    /// Calls of each batch that have not ended.
    left: HashMap<i64, usize>,
    batch_of: HashMap<(MessageId, i32), i64>,
    ended: Vec<i64>,
}

impl Claims {
    /// The number of the next batch.
    pub fn number(&mut self) -> i64 {
        self.last_number += 1;
        self.last_number
    }

    /// Claims of a batch that were made, with the fence each has.
    pub fn made(&mut self, number: i64, claims: impl Iterator<Item = (MessageId, i32)>) {
        let before = self.batch_of.len();
        self.batch_of.extend(claims.map(|claim| (claim, number)));
        let made = self.batch_of.len() - before;
        if made > 0 {
            self.left.insert(number, made);
        }
    }

    pub fn is_open(&self, id: MessageId, fence: i32) -> bool {
        self.batch_of.contains_key(&(id, fence))
    }

    /// The end of this call is written.
    pub fn call_ended(&mut self, id: MessageId, fence: i32) {
        let Some(number) = self.batch_of.remove(&(id, fence)) else { return };
        let Some(left) = self.left.get_mut(&number) else { return };
        *left -= 1;
        if *left == 0 {
            self.left.remove(&number);
            self.ended.push(number);
        }
    }

    /// Batches whose calls have all ended, and that are not removed yet.
    pub fn ended(&self) -> &[i64] {
        &self.ended
    }

    /// So many of the ended batches, the first ones, have been removed.
    pub fn removed(&mut self, count: usize) {
        self.ended.drain(..count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_ends_with_the_last_of_its_calls() {
        let mut claims = Claims::default();
        let number = claims.number();
        claims.made(number, [(MessageId(1), 1), (MessageId(2), 4)].into_iter());
        claims.call_ended(MessageId(1), 1);
        assert!(claims.ended().is_empty() && claims.is_open(MessageId(2), 4));
        claims.call_ended(MessageId(2), 3);
        assert!(claims.ended().is_empty(), "another call of the row");
        claims.call_ended(MessageId(2), 4);
        assert_eq!(claims.ended(), [number]);
        claims.removed(1);
        assert!(claims.ended().is_empty());
    }
}
