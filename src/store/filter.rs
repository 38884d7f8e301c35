//! A filter of rows of the log: the rows that are listed, exported or cancelled. Plain data.

use time::OffsetDateTime;

use crate::domain::{ErrorKind, LineId, Status};

/// A filter of rows; `None` or empty matches any. The rarest filter given finds the rows, the others are
/// checked row by row.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MessageFilter {
    /// One of these.
    pub statuses: Vec<Status>,
    pub line: Option<LineId>,
    pub cp_id: Option<String>,
    /// One of these references.
    pub msg_ids: Vec<String>,
    pub dest: Option<String>,
    /// The name of the batch that brought the row, as long as it is remembered.
    pub batch_id: Option<String>,
    /// Graph's code, as in `cdls.error_code`.
    pub error_code: Option<i32>,
    pub error_kind: Option<ErrorKind>,
    /// The earliest time of creation.
    pub since: Option<OffsetDateTime>,
    /// The time before which the row was created.
    pub until: Option<OffsetDateTime>,
}

/// The ways to find the rows of a filter: each has an index of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FilterIndex {
    Batch,
    MsgId,
    Dest,
    Campaign,
    /// Every row of the account; by line and status.
    Account,
}

/// The order in which a row goes through its states.
const IN_ORDER: [Status; 7] = [
    Status::Pending,
    Status::Sending,
    Status::Retry,
    Status::Unknown,
    Status::Ok,
    Status::Error,
    Status::Cancelled,
];

impl MessageFilter {
    pub fn index(&self) -> FilterIndex {
        match self {
            MessageFilter { batch_id: Some(_), .. } => FilterIndex::Batch,
            MessageFilter { msg_ids, .. } if !msg_ids.is_empty() => FilterIndex::MsgId,
            MessageFilter { dest: Some(_), .. } => FilterIndex::Dest,
            MessageFilter { cp_id: Some(_), .. } => FilterIndex::Campaign,
            _ => FilterIndex::Account,
        }
    }

    /// Return filters that match the same rows together, each of which is found in one place: the rows that
    /// are OK beside all others, and the rows of each other state in an index of their own, or in the queue.
    ///
    /// The filters have the order in which a row changes its state: a row that changes between two looks is
    /// found by both, and not by none.
    pub fn parts(&self) -> Vec<MessageFilter> {
        let Some(statuses) = self.possible() else { return vec![self.clone()] };
        let is_one_look = !matches!(self.index(), FilterIndex::Campaign | FilterIndex::Account)
            || statuses.contains(&Status::Ok);
        let part = |statuses: Vec<Status>| MessageFilter { statuses, ..self.clone() };
        match statuses.is_empty() {
            true => Vec::new(),
            false if is_one_look => vec![part(statuses)],
            false => statuses.into_iter().map(|status| part(vec![status])).collect(),
        }
    }

    /// Return the same filter, of rows that wait for their turn or for a time; `None`: it matches none of
    /// them.
    pub fn waiting(&self) -> Option<MessageFilter> {
        let waits = |status: &Status| matches!(status, Status::Pending | Status::Retry);
        let statuses = match self.statuses.is_empty() {
            true => IN_ORDER.to_vec(),
            false => self.statuses.clone(),
        };
        let statuses: Vec<Status> = statuses.into_iter().filter(waits).collect();
        (!statuses.is_empty()).then(|| MessageFilter { statuses, ..self.clone() })
    }

    /// Return the statuses that a matching row may have, in order; `None`: any.
    fn possible(&self) -> Option<Vec<Status>> {
        let may_have_error = |status: &Status| match (self.error_kind, self.error_code) {
            (Some(_), _) => *status == Status::Error,
            (None, Some(_)) => *status != Status::Ok,
            (None, None) => true,
        };
        let is_wanted = |status: &Status| self.statuses.is_empty() || self.statuses.contains(status);
        let possible: Vec<Status> =
            IN_ORDER.into_iter().filter(|status| is_wanted(status) && may_have_error(status)).collect();
        (possible.len() < IN_ORDER.len()).then_some(possible)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statuses(filter: &MessageFilter) -> Vec<Vec<Status>> {
        filter.parts().into_iter().map(|part| part.statuses).collect()
    }

    #[test]
    fn each_state_but_ok_is_a_part() {
        let of =
            |statuses: &[Status]| MessageFilter { statuses: statuses.to_vec(), ..MessageFilter::default() };
        assert_eq!(statuses(&of(&[])), [Vec::<Status>::new()]);
        assert_eq!(
            statuses(&of(&[Status::Error, Status::Pending])),
            [vec![Status::Pending], vec![Status::Error]]
        );
        assert_eq!(statuses(&of(&[Status::Error, Status::Ok])), [vec![Status::Ok, Status::Error]]);
        let by_dest = MessageFilter { dest: Some("a".into()), ..of(&[Status::Retry, Status::Error]) };
        assert_eq!(statuses(&by_dest), [vec![Status::Retry, Status::Error]]);
    }

    #[test]
    fn error_implies_the_states_that_may_have_it() {
        let kind = MessageFilter { error_kind: Some(ErrorKind::Expired), ..MessageFilter::default() };
        assert_eq!(statuses(&kind), [vec![Status::Error]]);
        let impossible = MessageFilter { statuses: vec![Status::Ok], ..kind };
        assert!(impossible.parts().is_empty());
        let code = MessageFilter { error_code: Some(190), ..MessageFilter::default() };
        assert!(statuses(&code).iter().all(|part| part.len() == 1) && statuses(&code).len() == 6);
    }

    #[test]
    fn waiting_rows_are_pending_or_retry() {
        let waiting = |statuses: &[Status]| {
            let filter = MessageFilter { statuses: statuses.to_vec(), ..MessageFilter::default() };
            filter.waiting().map(|filter| filter.statuses)
        };
        assert_eq!(waiting(&[]), Some(vec![Status::Pending, Status::Retry]));
        assert_eq!(waiting(&[Status::Retry, Status::Ok]), Some(vec![Status::Retry]));
        assert_eq!(waiting(&[Status::Ok, Status::Sending]), None);
    }
}
