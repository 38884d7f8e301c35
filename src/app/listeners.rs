//! The listeners of a process: the one of senders, with the parts behind it, and the admin listener; their TLS, and
//! the limits of their connections.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::{Parts, Role};
use crate::api;
use crate::domain::{BreakerState, Reply, Serving};
use crate::edge::tokens::TokenKeys;
use crate::edge::{self, ConnectionLimits, Directory, Guard, GuardOptions, Listening, ServeOptions, Tls};
use crate::ingest::{self, Ingest};
use crate::ops::{self, AdminListener};
use crate::settings::{AdminAddress, Settings, TlsFiles};
use crate::webhooks;

/// The limit of open files where the system does not tell it.
const COMMON_FILE_LIMIT: u64 = 1_024;

impl Parts<'_> {
    /// Take messages in over HTTP and AMQP. Return the address of HTTP, and its server.
    pub(super) async fn take_requests(
        &mut self,
        replies: mpsc::Receiver<Reply>,
    ) -> Result<(SocketAddr, JoinHandle<()>)> {
        let settings = self.settings;
        let is_local = settings.http.listen.ip().to_canonical().is_loopback();
        let tls = self.tls("http", settings.http.tls(), is_local)?;
        let listener = listen(settings.http.listen, "http.listen").await?;
        let address = listener.local_addr()?;
        ingest::try_temporary_folder().await;
        let directory = self.directory()?;
        let ingest = Ingest::new(
            self.store.clone(),
            directory.clone(),
            self.broker.clone(),
            self.feedback.clone(),
            self.settings,
            self.stopping.clone(),
        );
        self.tasks.spawn("ingest", ingest.clone().run(replies, self.ended.clone()));
        if let Some(batches) = self.broker.take_in(ingest::LONGEST_BODY) {
            self.tasks.spawn("intake", ingest.clone().take_in(batches));
        }
        let api = api::router(directory.clone(), self.store.clone(), self.settings);
        // Outside the gate: Meta has no token, and a wrong signature is no guess of one.
        let webhooks = webhooks::http::router(self.webhook_door()?);
        let router = edge::gated(ingest::http::router(ingest).merge(api), directory).merge(webhooks);
        let options = ServeOptions {
            listener: "http",
            limits: connection_limits(settings, self.role),
            trusted_proxies: settings.http.proxies()?,
            tls,
        };
        let served = edge::serve(Listening::Tcp(listener), router, options, self.stopping.clone());
        Ok((address, tokio::spawn(served)))
    }

    /// Make the directory of accounts and lines, with the guard against addresses that guess tokens.
    fn directory(&mut self) -> Result<Arc<Directory>> {
        let security = &self.settings.security;
        let keys = security.token_keys()?;
        let options = GuardOptions { ban: security.ban, bans_loopback: security.ban_loopback };
        let guard = Arc::new(Guard::new(options));
        let keys = TokenKeys::new(keys.iter().map(|key| &**key));
        let directory = Arc::new(Directory::new(self.store.clone(), keys, guard.clone()));
        self.repeat("bans", move |store| {
            let guard = guard.clone();
            async move { guard.follow_bans(&*store).await }
        });
        let used = directory.clone();
        self.repeat("token uses", move |_| {
            let directory = used.clone();
            async move { directory.write_token_uses().await }
        });
        Ok(directory)
    }

    /// Serve health checks and metrics; return their address.
    pub(super) async fn serve_admin(
        &mut self,
        serving: watch::Receiver<Serving>,
        graph: watch::Receiver<BreakerState>,
    ) -> Result<AdminAddress> {
        let settings = self.settings;
        let admin = &settings.admin;
        let access = ops::Access::new(admin, &admin.listen).await?;
        let tls = self.tls("admin", admin.tls(), admin.listen.is_local())?;
        let listener = AdminListener::bind(&admin.listen).await?;
        let address = listener.address().clone();
        let health = ops::Health::new(self.store.clone(), self.broker.clone(), serving, graph);
        let router = ops::router(health, access, api::document());
        let options = ServeOptions {
            listener: "admin",
            limits: ConnectionLimits::ADMIN,
            trusted_proxies: Vec::new(),
            tls,
        };
        self.tasks.spawn("admin", listener.serve(router, options, self.ended.clone()));
        Ok(address)
    }

    /// Return the TLS of a listener, if it has the files for it, and keep its certificate up to date. A listener
    /// without TLS that other machines reach is named in the log.
    fn tls(
        &mut self,
        listener: &'static str,
        files: Option<TlsFiles<'_>>,
        is_local: bool,
    ) -> Result<Option<Arc<Tls>>> {
        let Some(files) = files else {
            if !is_local {
                let key = format!("{listener}.tls_cert");
                tracing::warn!(
                    key,
                    "listener without TLS beyond loopback: its tokens and texts cross the network in plain text; \
                     set the key, or put a proxy with TLS in front"
                );
            }
            return Ok(None);
        };
        let tls = Arc::new(Tls::load(listener, files.cert, files.key)?);
        let task = if listener == "http" { "http certificate" } else { "admin certificate" };
        self.keep_running(task, tls.clone().keep_current());
        Ok(Some(tls))
    }
}

async fn listen(address: SocketAddr, key: &str) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("setting {key}: cannot listen on {address}"))
}

/// Return how many connections senders may hold: as set, or as the limit of open files leaves.
fn connection_limits(settings: &Settings, role: Role) -> ConnectionLimits {
    let calls = if role.sends() { settings.dispatch.concurrency as u64 } else { 0 };
    let all = match settings.http.max_connections {
        0 => {
            let open_files = rlimit::Resource::NOFILE.get_soft().unwrap_or(COMMON_FILE_LIMIT);
            ConnectionLimits::within(open_files, u64::from(settings.database.max_connections), calls)
        }
        most => most,
    };
    tracing::debug!(limit = all, "connections of senders are limited");
    ConnectionLimits::of(all, settings.http.max_connections_per_address)
}
