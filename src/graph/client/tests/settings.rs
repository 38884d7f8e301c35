//! Settings of the client.

use super::*;

#[test]
fn media_has_a_timeout_of_its_own() {
    let client = client("https://graph.example/v25.0");
    assert_eq!(client.total_timeout(MessageKind::Text), Duration::from_secs(10));
    for kind in [MessageKind::Image, MessageKind::Audio, MessageKind::Video, MessageKind::File] {
        assert_eq!(client.total_timeout(kind), Duration::from_secs(15));
    }
}

#[test]
fn a_base_url_with_credentials_is_refused_by_its_key() {
    let error = GraphClient::new(&settings("https://user:secret@graph.example/v25.0")).expect_err("refused");
    assert_eq!(error.to_string(), "setting graph.base_url: must hold no user name or password");
}

#[test]
fn printing_a_client_or_a_call_shows_no_secret() {
    let mut settings = settings("https://graph.example/v25.0");
    settings.app_secret = SecretString::from("the-app-secret");
    settings.proxy = SecretString::from("http://worker:hunter22@proxy.example:3128");
    let client = GraphClient::new(&settings).expect("a client");
    let page_token = SecretString::from(TOKEN);
    let call = Call {
        endpoint: &Endpoint::Instagram,
        app_secret: None,
        class: Class::INSTAGRAM,
        kind: MessageKind::Text,
        dest: "2531",
        mdata: "hi",
        attachment_id: None,
        metadata: None,
        page_token: &page_token,
    };
    let printed = format!("{client:?} {call:?}");
    for secret in ["the-app-secret", TOKEN, "hunter22", "d29ya2VyOmh1bnRlcjIy"] {
        assert!(!printed.contains(secret), "{printed}");
    }
}
