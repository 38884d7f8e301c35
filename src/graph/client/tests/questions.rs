//! Questions that name a token in their URL.

use super::*;

/// A server that takes a request without a body, and answers with the line of the request.
async fn echoing() -> String {
    serve(|mut stream| async move {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if stream.read_buf(&mut head).await.expect("a readable stream") == 0 {
                return;
            }
        }
        let head = String::from_utf8(head).expect("an ASCII head");
        // The client may close the connection before the whole answer is written.
        let _ = stream.write_all(ok(&head).as_bytes()).await;
    })
    .await
}

fn caller(token: &SecretString) -> Caller<'_> {
    Caller { endpoint: &Endpoint::Facebook, app_secret: None, page_token: token }
}

#[tokio::test]
async fn refresh_has_no_version_and_the_token_in_the_query_alone() {
    let client = client(&echoing().await);
    let token = SecretString::from("IGAAsecret");
    let head = String::from_utf8(answer(client.refresh_token(&token).await).body).expect("text");
    let path = "GET /refresh_access_token?grant_type=ig_refresh_token&access_token=IGAAsecret HTTP/1.1";
    assert!(head.starts_with(path) && !head.to_lowercase().contains("authorization"), "{head}");
}

#[tokio::test]
async fn facts_of_a_token_are_asked_without_a_trace_of_it() {
    let client = client(&echoing().await);
    let token = SecretString::from(TOKEN);
    let head = String::from_utf8(answer(client.debug_token(&caller(&token), None).await).body).expect("text");
    // The client has removed the token from the answer.
    assert!(head.starts_with("GET /v25.0/debug_token?input_token=[redacted] HTTP/1.1"), "{head}");
    assert!(!head.contains(TOKEN) && head.contains("Bearer [redacted]"), "{head}");
}

#[tokio::test]
async fn failure_tells_neither_url_nor_token() {
    let client = client("http://127.0.0.1:1/v25.0");
    let token = SecretString::from(TOKEN);
    for result in [client.refresh_token(&token).await, client.debug_token(&caller(&token), None).await] {
        let reason = not_sent(result);
        assert!(!reason.contains("refresh_access_token") && !reason.contains("debug_token"), "{reason}");
    }
}
