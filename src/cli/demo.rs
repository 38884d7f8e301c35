//! `demo`: the whole pipeline on a temporary database against the built-in Graph simulator.

use std::fs::Permissions;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::output::Output;
use super::table::{Column, Table, near_time, or_dash};
use super::tail;
use crate::app::{App, Role};
use crate::channel::Class;
use crate::domain::{AccountId, LineId, Status};
use crate::edge::tokens;
use crate::settings::{AdminAddress, Settings};
use crate::shutdown::{self, Hangup};
use crate::simulator::{GivenIdentity, Simulator, SimulatorOptions, WebhookRules};
use crate::store::{LogFilter, LogRow, NewLine, SharedStore};
use crate::telemetry;

/// The address on which the demo listens, if the port is free.
const USUAL_ADDRESS: &str = "127.0.0.1:8080";
/// The time for which `--once` waits for its messages.
const PATIENCE: Duration = Duration::from_secs(60);
/// The time for which `--once` waits for receipts. A message is not late without them.
const RECEIPTS_PATIENCE: Duration = Duration::from_secs(10);
/// Where webhooks come in.
const WEBHOOKS: &str = "/webhooks/meta";
/// The ids of the sample Page and the sample Instagram account.
const PAGE_ID: &str = "1001";
const INSTAGRAM_ID: &str = "1784";
const POLL: Duration = Duration::from_millis(200);

/// The messages of `--once`: class, parameters, and purpose. A recipient beginning with an outcome's name
/// gets that outcome from the simulator (`meta-dispatch simulate --help`).
const SHOWCASE: &[(Class, &str, &str, &str)] = &[
    (Class::MESSENGER, "ann", "text", "Your order 7 has shipped."),
    (Class::MESSENGER, "bob", "image", "https://example.com/receipt.png"),
    (Class::MESSENGER, "cleo", "audio", "https://example.com/hello.mp3"),
    (Class::MESSENGER, "dan", "video", "https://example.com/tour.mp4"),
    (Class::MESSENGER, "eve", "file", "https://example.com/terms.pdf"),
    (Class::INSTAGRAM, "fay", "text", "Olá! Seu pedido saiu para entrega."),
    (Class::INSTAGRAM, "gus", "image", "https://example.com/look.png"),
    (Class::INSTAGRAM, "hal", "audio", "https://example.com/song.m4a"),
    (Class::INSTAGRAM, "ivy", "video", "https://example.com/reel.mp4"),
    (Class::MESSENGER, "code10-jo", "text", "outside the 24-hour window"),
    (Class::INSTAGRAM, "igcode10-kim", "text", "the same on Instagram"),
    (Class::MESSENGER, "code551-lee", "text", "this person is not available"),
    (Class::MESSENGER, "code100-max", "text", "no such recipient"),
    (Class::MESSENGER, "code1200x2-nia", "text", "fails twice, then is sent"),
    (Class::MESSENGER, "code613x1-oli", "text", "the line is limited for a second"),
    (Class::MESSENGER, "code1x1-pam", "text", "unknown error, then sent"),
    (Class::MESSENGER, "http500x1-quy", "text", "server error, then sent"),
    (Class::MESSENGER, "taken500x1-ray", "text", "taken, yet answered with 500"),
    (Class::MESSENGER, "code1200-sue", "text", "fails until its tries are used up"),
    (Class::MESSENGER, "timeout-tom", "text", "no answer in time"),
    (Class::MESSENGER, "cut-una", "text", "cut after the request was read"),
];

/// The last messages of the show: these pause their line, or every line.
const PAUSING: &[(&str, &str)] = &[
    ("html-vic", "answered with a page of HTML"),
    ("code190-wes", "the page token has expired"),
    ("code4-xia", "the app's call limit is reached"),
];

/// The receipts of `--once`.
const RECEIPTS: [Column; 5] = [
    Column::number("CDLS_ID"),
    Column::text("DEST", 17),
    Column::new("SENT_AT"),
    Column::new("DELIVERED_AT"),
    Column::new("READ_AT"),
];

/// Run the demo until it is stopped, or send the showcase and exit.
pub async fn run(once: bool, config: Option<&Path>, out: &Output) -> Result<()> {
    let stop = shutdown::on_signal(Hangup::Stops, telemetry::finish)?;
    let folder = tempfile::Builder::new()
        .permissions(Permissions::from_mode(0o700))
        .tempdir()
        .context("no temporary folder for the demo's database")?;
    let secrets = Secrets::make();
    let app_secret = Some(secrets.app_secret.clone());
    let simulator = Simulator::start(SimulatorOptions { app_secret, ..SimulatorOptions::default() })?;
    let settings = settings(config, folder.path(), &simulator.base_url(), &secrets, once).await?;
    let Some(app) = stop.run_until_cancelled(App::start(&settings, Role::Serve)).await.transpose()? else {
        return Ok(());
    };
    let http = app.http.context("the demo takes requests")?;
    simulator.play_webhooks(secrets.webhooks(http, once))?;
    let stage = Stage::set(app.store.clone(), http, simulator).await?;
    let shown = if once {
        let shown = stop.run_until_cancelled(stage.show(out)).await;
        app.stop().await;
        shown.unwrap_or(Ok(()))
    } else {
        out.text(&stage.introduction(&app.admin))?;
        let everything = LogFilter::default();
        tokio::select! {
            followed = tail::follow(&everything, 20, &*stage.store, out) => followed,
            ended = app.run_until(stop) => ended,
        }
    };
    stage.simulator.shutdown().await;
    shown
}

/// The secrets of the demo's app at Meta, made anew for each run.
struct Secrets {
    verify_token: SecretString,
    app_secret: SecretString,
}

impl Secrets {
    fn make() -> Secrets {
        let random = || SecretString::from(hex::encode(rand::random::<[u8; 16]>()));
        Secrets { verify_token: random(), app_secret: random() }
    }

    /// Let the simulator send receipts to the demo: within seconds, so that a reader sees them come.
    fn webhooks(&self, http: SocketAddr, once: bool) -> WebhookRules {
        let (delay_ms, read_delay_ms) = if once { (100, 300) } else { (1_500, 2_500) };
        WebhookRules {
            url: format!("http://{http}{WEBHOOKS}"),
            app_secret: Some(self.app_secret.clone()),
            verify_token: Some(self.verify_token.clone()),
            delay_ms,
            read_delay_ms,
            ..WebhookRules::default()
        }
    }
}

async fn settings(
    config: Option<&Path>,
    folder: &Path,
    graph: &str,
    secrets: &Secrets,
    once: bool,
) -> Result<Settings> {
    let is_free = !once && tokio::net::TcpListener::bind(USUAL_ADDRESS).await.is_ok();
    let mut prescribed = vec![
        ("database.url", format!("sqlite:{}", folder.join("demo.db").display())),
        ("broker.url", "embedded".into()),
        ("graph.base_url", graph.into()),
        ("graph.instagram_base_url", graph.into()),
        ("graph.app_secret", secrets.app_secret.expose_secret().to_owned()),
        ("webhooks.verify_token", secrets.verify_token.expose_secret().to_owned()),
        ("graph.instagram_base_url", graph.into()),
        ("http.listen", if is_free { USUAL_ADDRESS } else { "127.0.0.1:0" }.into()),
        ("admin.listen", "127.0.0.1:0".into()),
        ("http.default_wait", "10s".into()),
        ("http.tls_cert", String::new()),
        ("http.tls_key", String::new()),
        ("admin.tls_cert", String::new()),
        ("admin.tls_key", String::new()),
        // All of it is on this machine.
        ("security.plaintext", "private".into()),
    ];
    if once {
        // Short times, so that every outcome is seen within seconds.
        prescribed.extend([
            ("graph.timeout", "2s".into()),
            ("graph.connect_timeout", "1s".into()),
            ("graph.media_timeout", "2s".into()),
            ("retry.base", "200ms".into()),
            ("retry.cap", "1s".into()),
            ("dispatch.max_attempts", "4".into()),
        ]);
    }
    let overrides = prescribed.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    Ok(Settings::load_with(config, overrides)?)
}

/// The sample account with its lines.
struct Stage {
    store: SharedStore,
    simulator: Simulator,
    http: SocketAddr,
    account: AccountId,
    tsid: SecretString,
    messenger: LineId,
    instagram: LineId,
}

impl Stage {
    async fn set(store: SharedStore, http: SocketAddr, simulator: Simulator) -> Result<Stage> {
        let account = store.add_account("Demo").await?;
        let tsid = tokens::mint();
        let identifier = tokens::identifier(tsid.expose_secret()).context("a minted token is long enough")?;
        store.add_token(account, identifier, &tokens::hash(tsid.expose_secret())).await?;
        let messenger = add_line(&store, &simulator, account, Class::MESSENGER, "Demo page").await?;
        let instagram = add_line(&store, &simulator, account, Class::INSTAGRAM, "Demo Instagram").await?;
        Ok(Stage { store, simulator, http, account, tsid, messenger, instagram })
    }

    fn introduction(&self, admin: &AdminAddress) -> String {
        let Stage { http, messenger, instagram, .. } = self;
        let graph = self.simulator.base_url();
        let tsid = self.tsid.expose_secret();
        format!(
            "\
meta-dispatch demo: HTTP in, SQLite log, embedded queue, and a simulated Graph
API. Nothing leaves this machine.

  send endpoints   http://{http}
  health           http://{admin}/readyz
  Graph simulator  {graph}
  lines            {messenger} (messenger)  {instagram} (instagram)

Send a Messenger message:

  curl -s http://{http}/api/v2/MakeMessenger.php \\
    -d tsid={tsid} -d app_id={messenger} \\
    -d dest=ann -d mdata='Hello, Ann'

Send an Instagram message (JSON, token as Bearer):

  curl -s http://{http}/api/v2/MakeInstagram.php \\
    -H 'Authorization: Bearer {tsid}' \\
    -H 'Content-Type: application/json' \\
    -d '{{\"app_id\":{instagram},\"dest\":\"bob\",\"mdata\":\"Hello, Bob\"}}'

The recipient chooses the outcome: dest=code10-ann is outside the 24-hour
window, code1200x2-ann fails twice and is then sent, cut-ann is cut.
`meta-dispatch simulate --help` lists all of them. Stop with Ctrl-C.

The log, as it changes; seconds after a message was sent, its recipient gets it
and reads it:
"
        )
    }

    /// Send the showcase, wait until every row has settled or waits with its line, and print the log.
    async fn show(&self, out: &Output) -> Result<()> {
        for (class, dest, mtype, mdata) in SHOWCASE {
            let line = if *class == Class::MESSENGER { self.messenger } else { self.instagram };
            self.submit(*class, line, dest, mtype, mdata).await?;
        }
        self.wait_until(|row| row.status.is_outcome()).await?;
        for (dest, mdata) in PAUSING {
            let line = add_line(&self.store, &self.simulator, self.account, Class::MESSENGER, dest).await?;
            self.submit(Class::MESSENGER, line, dest, "text", mdata).await?;
            self.wait_until(|row| row.status.is_outcome() || row.error_code.is_some()).await?;
        }
        // Without receipts the log is shown as it stands.
        let is_read = |row: &LogRow| row.status != Status::Ok || row.read_at.is_some();
        let _ = tokio::time::timeout(RECEIPTS_PATIENCE, self.wait_until(is_read)).await;
        tail::newest(&LogFilter::default(), 200, &*self.store, out).await?;
        if !out.json {
            out.text(
                "\nThe last two wait: Graph's answers paused their lines.\n\
                 UNKNOWN rows are held, as Graph may have taken them.",
            )?;
            out.text(&format!("\nReceipts, as webhooks told them:\n\n{}", self.receipts(out).await?))?;
        }
        Ok(())
    }

    /// Return the table of the messages that their recipients got, oldest first.
    async fn receipts(&self, out: &Output) -> Result<String> {
        let mut rows = self.store.log_newest(&LogFilter::default(), 200).await?;
        rows.retain(|row| row.delivered_at.is_some() || row.read_at.is_some());
        rows.reverse();
        let now = OffsetDateTime::now_utc();
        let time = |at: Option<OffsetDateTime>| or_dash(at.map(|at| near_time(at, now)));
        let mut table = Table::new(&RECEIPTS, out.screen);
        for row in &rows {
            table.add([
                row.cdls_id.to_string(),
                row.dest.clone(),
                time(row.sent_at),
                time(row.delivered_at),
                time(row.read_at),
            ]);
        }
        Ok(table.render())
    }

    async fn submit(&self, class: Class, line: LineId, dest: &str, mtype: &str, mdata: &str) -> Result<()> {
        // The process is on this machine, where no proxy of the environment leads.
        let answer: Value = reqwest::Client::builder()
            .no_proxy()
            .build()?
            .post(format!("http://{}/api/v2/{}", self.http, class.endpoint))
            .bearer_auth(self.tsid.expose_secret())
            .json(&json!({"app_id": line, "dest": dest, "mtype": mtype, "mdata": mdata, "wait": 0}))
            .send()
            .await?
            .json()
            .await?;
        if answer["return"]["status"] != "OK" {
            bail!("the demo's message to {dest} was refused: {answer}");
        }
        Ok(())
    }

    async fn wait_until(&self, settled: impl Fn(&LogRow) -> bool) -> Result<()> {
        let waiting = async {
            loop {
                let rows = self.store.log_newest(&LogFilter::default(), 200).await?;
                if rows.iter().all(&settled) {
                    return Ok(());
                }
                tokio::time::sleep(POLL).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting)
            .await
            .context("the demo's messages did not settle in a minute")?
    }
}

async fn add_line(
    store: &SharedStore,
    simulator: &Simulator,
    account: AccountId,
    class: Class,
    name: &str,
) -> Result<LineId> {
    let page_token = format!("EAAdemo{}", uuid::Uuid::now_v7().simple());
    let is_instagram = class == Class::INSTAGRAM;
    simulator.play_identity(
        &page_token,
        GivenIdentity {
            page_id: (!is_instagram).then(|| PAGE_ID.to_owned()),
            ig_id: is_instagram.then(|| INSTAGRAM_ID.to_owned()),
            ..GivenIdentity::default()
        },
    );
    let line = NewLine {
        id: None,
        account,
        name: Some(name.to_owned()),
        class,
        page_token: page_token.into(),
        page_id: Some(PAGE_ID.to_owned()),
        instagram_account_id: is_instagram.then(|| INSTAGRAM_ID.to_owned()),
        login: None,
        rate_text: None,
        rate_media: None,
    };
    Ok(store.add_line(&line).await?)
}
