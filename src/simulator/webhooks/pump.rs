//! The task that sends what is due, and repeats what was not answered with 200.
//!
//! The first try of a POST waits for the one before, so that undisturbed events keep their order; repetitions
//! have tasks of their own, as Meta's have.

use std::sync::Arc;
use std::time::Instant;

use reqwest::Client;
use reqwest::header::CONTENT_TYPE;
use reqwest::redirect::Policy;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;

use super::outbox::{Next, shuffle};
use super::post::{Post, posts};
use super::rules::WebhookRules;
use crate::simulator::shared::Shared;

/// Send events until the simulator stops.
pub(in crate::simulator) async fn pump(shared: Shared, stop: CancellationToken, tasks: TaskTracker) {
    // Made for the first event: a simulator without webhooks needs no client.
    let mut client = None;
    loop {
        let outbox = &shared.stage().outbox;
        match outbox.next(Instant::now()) {
            Next::Rest => outbox.news().await,
            Next::At(time) => {
                tokio::select! {
                    () = outbox.news() => {}
                    () = tokio::time::sleep_until(time.into()) => {}
                }
            }
            Next::Send(rules, events) => {
                let client = client.get_or_insert_with(build).clone();
                let events = if rules.shuffle { shuffle(events) } else { events };
                let posts = posts(events, &rules);
                let posts = if rules.shuffle { shuffle(posts) } else { posts };
                for post in posts.iter().flat_map(|post| (0..rules.copies).map(move |_| post)) {
                    if send(&shared, &client, &rules, post).await != 200 {
                        let repeat = repeat(shared.clone(), client.clone(), Arc::clone(&rules), post.clone());
                        tasks.spawn(stop.clone().run_until_cancelled_owned(repeat));
                    }
                }
            }
        }
    }
}

fn build() -> Client {
    // Without proxies: the URL is the operator's own.
    let client = Client::builder().no_proxy().redirect(Policy::none()).build();
    client.expect("a client without certificates of its own can be built")
}

/// Send a POST once, and return the HTTP status; 0 without an answer.
async fn send(shared: &Shared, client: &Client, rules: &WebhookRules, post: &Post) -> u16 {
    let request = client
        .post(&rules.url)
        .header(CONTENT_TYPE, "application/json")
        .header("x-hub-signature-256", &post.signature)
        .timeout(rules.timeout())
        .body(post.body.clone());
    let status = match request.send().await {
        Ok(response) => response.status().as_u16(),
        Err(error) => {
            debug!(error = %error.without_url(), "webhook not answered");
            0
        }
    };
    shared.stage().outbox.tried(post, status);
    status
}

/// Repeat a POST until it is answered with 200 or its tries are used up.
async fn repeat(shared: Shared, client: Client, rules: Arc<WebhookRules>, post: Post) {
    let outbox = &shared.stage().outbox;
    outbox.retries();
    let mut is_taken = false;
    let mut next_try = 2;
    while let Some(pause) = rules.retry.pause(next_try) {
        tokio::time::sleep(pause).await;
        // The URL may have moved meanwhile; without one, nobody hears it any more.
        let Some(now) = outbox.rules() else { break };
        if send(&shared, &client, &now, &post).await == 200 {
            is_taken = true;
            break;
        }
        next_try += 1;
    }
    outbox.ended(!is_taken);
}

/// Send Meta's verification request, and return the HTTP status and whether the challenge came back.
pub(in crate::simulator) async fn verify(rules: &WebhookRules) -> Value {
    let challenge = rand::random_range(1_000_000_000_u64..9_999_999_999).to_string();
    let token = rules.verify_token.as_ref().map_or("", |token| token.expose_secret());
    let Ok(mut url) = url::Url::parse(&rules.url) else { return json!({ "status": 0, "verified": false }) };
    url.query_pairs_mut()
        .append_pair("hub.mode", "subscribe")
        .append_pair("hub.challenge", &challenge)
        .append_pair("hub.verify_token", token);
    let response = match build().get(url).timeout(rules.timeout()).send().await {
        Ok(response) => response,
        Err(error) => {
            return json!({ "status": 0, "verified": false, "error": error.without_url().to_string() });
        }
    };
    let status = response.status().as_u16();
    let is_back = response.text().await.is_ok_and(|text| text == challenge);
    json!({ "status": status, "verified": status == 200 && is_back })
}
