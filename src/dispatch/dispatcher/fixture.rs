//! A dispatcher without tasks around it: tests send it events and read its requests.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use super::event_loop::{Channels, Dispatcher};
use crate::broker::JobDelivery;
use crate::dispatch::options::DispatchOptions;
use crate::dispatch::send::SendContext;
use crate::dispatch::tasks::lease::SendUntil;
use crate::dispatch::tasks::reader::Request;
use crate::dispatch::tasks::recorder::{Entry, WriteProgress};
use crate::domain::BreakerState;
use crate::graph::GraphClient;
use crate::settings::Settings;

pub struct Fixture {
    pub dispatcher: Dispatcher,
    /// Keeps the channel of jobs open.
    pub _jobs: mpsc::Sender<JobDelivery>,
    pub requests: mpsc::UnboundedReceiver<Request>,
    pub entries: mpsc::UnboundedReceiver<Entry>,
}

impl Fixture {
    pub fn new() -> Fixture {
        // Fails only if another test of this process has installed it already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let settings = Settings::load(None).expect("defaults are right");
        let options = DispatchOptions::of(&settings);
        let send_until = SendUntil::default();
        let context = SendContext {
            graph: GraphClient::new(&settings.graph).expect("defaults are right"),
            policy: options.retry.clone(),
            codes: options.codes.clone(),
            metadata_key: options.metadata_key.clone(),
            send_until: send_until.clone(),
        };
        let (jobs, jobs_in) = mpsc::channel(1);
        let (requests_out, requests) = mpsc::unbounded_channel();
        let (entries_out, entries) = mpsc::unbounded_channel();
        let channels = Channels {
            inbox: mpsc::unbounded_channel().1,
            jobs: jobs_in,
            entries: entries_out,
            requests: requests_out,
            orders: mpsc::unbounded_channel().0,
            recipients: mpsc::unbounded_channel().0,
            budgets: mpsc::unbounded_channel().0,
            uploads: mpsc::unbounded_channel().0,
            look: Arc::default(),
            due: Arc::default(),
        };
        let breaker = watch::Sender::new(BreakerState::Closed);
        let dispatcher = Dispatcher::new(
            "w".into(),
            context,
            options,
            channels,
            WriteProgress::default(),
            send_until,
            breaker,
        );
        Fixture { dispatcher, _jobs: jobs, requests, entries }
    }
}
