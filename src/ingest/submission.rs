//! The check of one submission of a producer: whose it is, whether it can be read, and where its answer may go.
//!
//! The codes come in the contract's order, but the sender is looked for in any case: a producer whose account is
//! not known receives no answer, as the program would otherwise publish for anybody. Never here: the commit.

use secrecy::{ExposeSecret, SecretString};

use super::body::submission_charset;
use super::parameters::Parameters;
use super::pipeline::token;
use super::{Ingest, LONGEST_BODY};
use crate::broker::{Submitted, TokenHeader, reply_to};
use crate::channel::Class;
use crate::domain::{AccountId, ReplyTo, RowId, TokenScope, Waiter};
use crate::edge::{Refusal, Refused};
use crate::settings::ReplyScope;
use crate::store::{Idempotency, NewMessage};

/// The version of submissions that this program reads (header `v`).
const VERSION: i64 = 1;

/// The result of checking a submission, before its commit.
#[expect(clippy::large_enum_variant, reason = "nearly all are the large one, and none lives long")]
pub(super) enum CheckedSubmission {
    New(NewMessage),
    LoggedBefore(AccountId, RowId),
}

/// A refusal of a submission.
pub(super) struct CheckFailure {
    pub reason: Refused,
    /// The account of the submission; `None` if its sender is not known or may not send, and is not answered.
    pub account: Option<AccountId>,
}

impl CheckFailure {
    pub(super) fn of(account: AccountId, reason: impl Into<Refused>) -> CheckFailure {
        CheckFailure { reason: reason.into(), account: Some(account) }
    }

    fn unauthenticated(reason: Refused) -> CheckFailure {
        CheckFailure { reason, account: None }
    }

    /// Whether the submission waits for the database.
    pub(super) fn waits(&self) -> bool {
        self.reason.refusal == Refusal::Unavailable
    }

    /// Whether the submission waits where it holds up no other user: its account is over a quota, or the key of its
    /// token is not in the settings. In the shared queue the first characters of such a token would be enough to stop
    /// all producers.
    pub(super) fn waits_alone(&self) -> bool {
        self.reason.refusal.is_over_quota() || self.reason.refusal == Refusal::TokenKeyMissing
    }

    /// Whether it is not known who sent the submission. An account that is disabled is known, and so is one whose
    /// token may not send.
    pub(super) fn is_unauthenticated(&self) -> bool {
        let is_known = matches!(self.reason.refusal, Refusal::AccountInactive | Refusal::NoScope(_));
        self.account.is_none() && !is_known
    }
}

impl Ingest {
    pub(super) async fn check(&self, submitted: &Submitted) -> Result<CheckedSubmission, CheckFailure> {
        let parameters = match read(submitted) {
            Ok(parameters) => parameters,
            Err(reason) => return Err(self.unreadable(submitted, reason).await),
        };
        let account = self.account_of(submitted, Some(&parameters)).await;
        let account = account.map_err(CheckFailure::unauthenticated)?;
        let checked = self.check_as(account, submitted, &parameters).await;
        checked.map_err(|reason| CheckFailure::of(account, reason))
    }

    /// Return the failure of a submission whose body cannot be read: its header or its user may tell the sender.
    async fn unreadable(&self, submitted: &Submitted, reason: Refused) -> CheckFailure {
        match self.account_of(submitted, None).await {
            Ok(account) => CheckFailure::of(account, reason),
            Err(away) if away.refusal == Refusal::Unavailable => CheckFailure::unauthenticated(away),
            Err(_) => CheckFailure::unauthenticated(reason),
        }
    }

    async fn check_as(
        &self,
        account: AccountId,
        submitted: &Submitted,
        parameters: &Parameters,
    ) -> Result<CheckedSubmission, Refused> {
        if submitted.version != VERSION {
            return Err(Refused::parameter(
                "v",
                "The header `v` names another version of submissions than 1: publish version 1",
            ));
        }
        let class: Class = submitted.routing_key.parse().map_err(|_| wrong_routing_key())?;
        let key = match &submitted.message_id {
            Some(id) => Some(self.key(id.clone(), class, parameters)?),
            None => None,
        };
        let prepared = self.prepare_submitted(account, class, parameters, submitted).await;
        match (prepared, key) {
            (Ok(message), key) => {
                Ok(CheckedSubmission::New(NewMessage { idempotency: key.map(Idempotency::Key), ..message }))
            }
            (Err(refused), _) if refused.refusal == Refusal::Unavailable => Err(refused),
            // A logged submission is not refused when it is repeated, even where a new one would be.
            (Err(refused), Some(key)) => match self.logged_before(account, &key).await? {
                Some(id) => Ok(CheckedSubmission::LoggedBefore(account, id)),
                None => Err(refused),
            },
            (Err(refused), None) => Err(refused),
        }
    }

    async fn prepare_submitted(
        &self,
        account: AccountId,
        class: Class,
        parameters: &Parameters,
        submitted: &Submitted,
    ) -> Result<NewMessage, Refused> {
        let reply_to = self.reply_to(submitted, account);
        let of_properties = reply_to.as_ref().map(drop).map_err(Refused::clone);
        let mut message = self.prepare(account, class, parameters, of_properties).await?;
        let reply_to = reply_to?;
        message.submission.waiter = reply_to.map(|reply_to| Waiter::Producer(reply_to).column());
        Ok(message)
    }

    /// Return the account of the header `tsid`, of the body's `tsid` or `sid`, or of the user that the broker
    /// vouches for; in this order.
    async fn account_of(
        &self,
        submitted: &Submitted,
        parameters: Option<&Parameters>,
    ) -> Result<AccountId, Refused> {
        match &submitted.tsid {
            TokenHeader::Text(token) => return self.account_of_token(token).await,
            TokenHeader::WrongType => return Err(Refusal::UnknownToken.into()),
            TokenHeader::Absent => {}
        }
        let of_body = match parameters {
            Some(parameters) => match token(parameters, None) {
                Ok(token) => self.account_of_token(&token).await,
                Err(refused) => Err(refused),
            },
            None => Err(Refusal::NoToken.into()),
        };
        match (of_body, &submitted.user_id) {
            (Err(refused), Some(user)) if refused.refusal == Refusal::NoToken => {
                Ok(self.directory.account_of_broker_user(user).await?)
            }
            (account, _) => account,
        }
    }

    /// Return the account of a token. A producer has no address: failures are not counted, and no allow-list holds.
    async fn account_of_token(&self, token: &SecretString) -> Result<AccountId, Refused> {
        Ok(self.directory.account(token.expose_secret(), TokenScope::Send, None).await?)
    }

    /// Return the producer's address for answers. A submission with a forbidden address is refused, and that
    /// refusal is not answered.
    pub(super) fn reply_to(
        &self,
        submitted: &Submitted,
        account: AccountId,
    ) -> Result<Option<ReplyTo>, Refused> {
        let Some(queue) = &submitted.reply_to else { return Ok(None) };
        if !reply_to::takes_answers(queue) {
            return Err(Refused::parameter(
                "reply_to",
                "`reply_to` names a queue of meta-dispatch or an address that no broker made: name a queue of your own",
            ));
        }
        if self.reply_scope == ReplyScope::Own && !reply_to::belongs_to(queue, submitted.user_id.as_deref()) {
            return Err(Refused::parameter(
                "reply_to",
                "`reply_to` names a queue that is not known to be yours: use direct reply-to, a queue that the broker \
                 named, or a name that begins with your broker user and a dot, and send the property `user_id`",
            ));
        }
        let correlation_id = submitted.correlation_id.clone();
        Ok(Some(ReplyTo { queue: queue.clone(), correlation_id, account: Some(account) }))
    }
}

fn read(submitted: &Submitted) -> Result<Parameters, Refused> {
    if submitted.body_bytes > LONGEST_BODY {
        return Err(Refusal::TooLarge.into());
    }
    let property = |text: &Option<String>| text.clone().unwrap_or_default();
    let charset =
        submission_charset(&property(&submitted.content_type), &property(&submitted.content_encoding))?;
    if submitted.body.is_empty() {
        return Err(Refused::malformed("The body is empty: publish a JSON object with the parameters"));
    }
    let mut parameters = Parameters::of_json(&submitted.body, charset)?;
    parameters.forget_wait();
    Ok(parameters)
}

fn wrong_routing_key() -> Refused {
    Refused::parameter(
        "class",
        "The routing key is the class of the line: publish with `messenger` or `instagram`",
    )
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::database_away(Refusal::Unavailable, true, false)]
    #[case::key_missing(Refusal::TokenKeyMissing, false, true)]
    #[case::over_a_rate(Refusal::OverRate, false, true)]
    #[case::over_a_backlog(Refusal::OverBacklog, false, true)]
    #[case::unknown_token(Refusal::UnknownToken, false, false)]
    fn only_the_database_holds_up_other_users(
        #[case] refusal: Refusal,
        #[case] waits: bool,
        #[case] waits_alone: bool,
    ) {
        let failure = CheckFailure::unauthenticated(refusal.into());
        assert_eq!((failure.waits(), failure.waits_alone()), (waits, waits_alone));
    }
}
