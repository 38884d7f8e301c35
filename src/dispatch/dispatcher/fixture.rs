//! A dispatcher without tasks around it: tests hand it events and read what it asks for.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use super::{Channels, Dispatcher};
use crate::broker::JobDelivery;
use crate::dispatch::DispatchOptions;
use crate::dispatch::lease::SendUntil;
use crate::dispatch::reader::Request;
use crate::dispatch::recorder::{Entry, Progress};
use crate::dispatch::send::SendContext;
use crate::graph::GraphClient;
use crate::message::BreakerState;
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
        // Fails only if a test of this process has done it already.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let settings = Settings::load(None).expect("defaults are right");
        let options = DispatchOptions::of(&settings);
        let send_until = SendUntil::default();
        let context = SendContext {
            graph: GraphClient::new(&settings.graph).expect("defaults are right"),
            policy: options.retry.clone(),
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
            look: Arc::default(),
            due: Arc::default(),
        };
        let breaker = watch::Sender::new(BreakerState::Closed);
        let dispatcher =
            Dispatcher::new("w".into(), context, options, channels, Progress::default(), send_until, breaker);
        Fixture { dispatcher, _jobs: jobs, requests, entries }
    }
}
