//! The connection for events, opened with the first one: each goes to the exchange of all listeners and to that of
//! its account, and an event of a webhook to the exchange of those.
//!
//! An account's exchange is declared when its first event is published, so that accounts without events have
//! none. An exchange that cannot be declared (an operator made another one of its name) loses its events and no
//! others. Never here: messages that anybody waits for.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use lapin::options::BasicPublishOptions;
use lapin::types::ShortString;
use lapin::{Channel, Event};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::super::public;
use super::connection::{Link, Session, SessionError, first_of};
use super::outgoing::transient_json;
use super::topology;
use crate::domain::AccountId;

const SETUP_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the last events may take when the process stops.
const LAST_TIMEOUT: Duration = Duration::from_secs(5);
const CHECK_EVERY: Duration = Duration::from_millis(500);
/// Messages written at a time; further events wait in their channel.
const MAX_IN_FLIGHT: usize = 256;

/// An event on its way.
pub(super) struct OutgoingEvent {
    /// `None`: an event of a webhook.
    account: Option<AccountId>,
    key: ShortString,
    body: Vec<u8>,
}

impl OutgoingEvent {
    /// Create an event; `None` if its key is no routing key.
    pub(super) fn new(account: AccountId, key: &str, body: Vec<u8>) -> Option<OutgoingEvent> {
        Some(OutgoingEvent { account: Some(account), key: ShortString::try_new(key).ok()?, body })
    }

    /// Create an event of a webhook; `None` if its key is no routing key.
    pub(super) fn inbound(key: &str, body: Vec<u8>) -> Option<OutgoingEvent> {
        Some(OutgoingEvent { account: None, key: ShortString::try_new(key).ok()?, body })
    }
}

/// The publisher of events.
pub(super) struct EventOutlet {
    waiting: mpsc::Receiver<OutgoingEvent>,
    next: Option<OutgoingEvent>,
}

impl EventOutlet {
    pub(super) fn new(waiting: mpsc::Receiver<OutgoingEvent>) -> EventOutlet {
        EventOutlet { waiting, next: None }
    }
}

#[async_trait]
impl Session for EventOutlet {
    fn purpose(&self) -> Cow<'static, str> {
        "events".into()
    }

    async fn needed(&mut self) {
        first_of(&mut self.next, &mut self.waiting).await;
    }

    async fn run(&mut self, link: &Link, stop: &CancellationToken) -> Result<(), SessionError> {
        let mut exchanges = Exchanges::open(link).await?;
        let mut events = link.events();
        let mut check = interval(CHECK_EVERY);
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_blocked = false;
        loop {
            if let Some(event) = self.next.take() {
                exchanges.publish(event).await?;
            }
            let may_write = !is_blocked && exchanges.written.len() < MAX_IN_FLIGHT;
            tokio::select! {
                () = stop.cancelled() => {
                    return if is_blocked { Ok(()) } else { self.publish_last(exchanges).await };
                }
                Some(event) = events.next() => match event {
                    Event::ConnectionBlocked(_) => is_blocked = true,
                    Event::ConnectionUnblocked => is_blocked = false,
                    Event::Error(error) => return Err(error.into()),
                    _ => {}
                },
                Some(written) = exchanges.written.next() => written?,
                Some(event) = self.waiting.recv(), if may_write => self.next = Some(event),
                _ = check.tick() => exchanges.check()?,
            }
        }
    }

    fn connected(&self, _connected: bool) {}
}

impl EventOutlet {
    /// Publish the events that were handed over before the stop.
    async fn publish_last(&mut self, mut exchanges: Exchanges<'_>) -> Result<(), SessionError> {
        let published = async {
            while let Ok(event) = self.waiting.try_recv() {
                exchanges.publish(event).await?;
            }
            while let Some(written) = exchanges.written.next().await {
                written?;
            }
            Ok(())
        };
        timeout(LAST_TIMEOUT, published).await.map_err(|_| SessionError::Timeout("an event"))?
    }
}

/// The exchanges of one session.
struct Exchanges<'l> {
    link: &'l Link,
    channel: Channel,
    /// Closed by the broker when it refuses a declaration.
    declaring: Channel,
    is_common_declared: bool,
    /// Whether the exchange of webhooks' events is declared, once it was to be.
    is_inbound_declared: Option<bool>,
    /// The accounts whose exchange was to be declared, and whether it is.
    accounts: HashMap<AccountId, bool>,
    written: FuturesUnordered<BoxFuture<'static, lapin::Result<()>>>,
}

impl Exchanges<'_> {
    async fn open(link: &Link) -> Result<Exchanges<'_>, SessionError> {
        let (channel, declaring) = (link.channel().await?, link.channel().await?);
        let mut exchanges = Exchanges {
            link,
            channel,
            declaring,
            is_common_declared: false,
            is_inbound_declared: None,
            accounts: HashMap::new(),
            written: FuturesUnordered::new(),
        };
        exchanges.is_common_declared = exchanges.declare(public::EVENTS).await?;
        Ok(exchanges)
    }

    async fn publish(&mut self, event: OutgoingEvent) -> Result<(), SessionError> {
        let OutgoingEvent { account, key, body } = event;
        let exchanges = match account {
            Some(account) => self.of_account(account).await?,
            None => self.of_webhooks().await?,
        };
        let channel = self.channel.clone();
        self.written.push(Box::pin(async move {
            for exchange in exchanges {
                let (options, properties) = (BasicPublishOptions::default(), transient_json());
                channel.basic_publish(exchange.into(), key.clone(), options, &body, properties).await?;
            }
            Ok(())
        }));
        Ok(())
    }

    /// Return the exchanges of an account's events, as far as they are there.
    async fn of_account(&mut self, account: AccountId) -> Result<Vec<String>, SessionError> {
        let of_account = public::events_of(account);
        let is_declared = match self.accounts.get(&account) {
            Some(is_declared) => *is_declared,
            None => {
                let is_declared = self.declare(&of_account).await?;
                self.accounts.insert(account, is_declared);
                is_declared
            }
        };
        let common = self.is_common_declared.then(|| public::EVENTS.to_owned());
        Ok(common.into_iter().chain(is_declared.then_some(of_account)).collect())
    }

    /// Return the exchange of webhooks' events, if it is there.
    async fn of_webhooks(&mut self) -> Result<Vec<String>, SessionError> {
        let is_declared = match self.is_inbound_declared {
            Some(is_declared) => is_declared,
            None => {
                let is_declared = self.declare(public::INBOUND).await?;
                self.is_inbound_declared = Some(is_declared);
                is_declared
            }
        };
        Ok(is_declared.then(|| public::INBOUND.to_owned()).into_iter().collect())
    }

    /// Declare an exchange of events; return whether it is there.
    async fn declare(&mut self, exchange: &str) -> Result<bool, SessionError> {
        let declared = timeout(SETUP_TIMEOUT, topology::declare_events(&self.declaring, exchange))
            .await
            .map_err(|_| SessionError::Timeout("exchange.declare"))?;
        let Err(error) = declared else { return Ok(true) };
        if !self.link.is_open() {
            return Err(error.into());
        }
        tracing::warn!(
            exchange,
            %error,
            "cannot declare an exchange of events: its listeners hear nothing; grant the right to declare it, or \
             delete another one of its name"
        );
        self.declaring = self.link.channel().await?;
        Ok(false)
    }

    fn check(&self) -> Result<(), SessionError> {
        match self.link.is_open() && self.channel.status().connected() {
            true => Ok(()),
            false => Err(SessionError::Closed),
        }
    }
}
