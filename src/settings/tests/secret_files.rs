//! Secrets from files, and files that others may open.

use rstest::rstest;

use super::*;

/// Return a file with this secret, which its user alone may open.
fn secret_file(secret: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(secret.as_bytes()).expect("the file can be written");
    file
}

#[rstest]
#[case("database.url", &format!("postgres://user:{SECRET}@host/log"))]
#[case("broker.url", &format!("amqp://user:{SECRET}@host"))]
#[case("graph.proxy", &format!("http://user:{SECRET}@proxy:3128"))]
#[case("graph.app_secret", SECRET)]
#[case("webhooks.verify_token", SECRET)]
#[case("security.key", "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=")]
#[case("security.token_key", "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=")]
#[case("security.app_key", "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=")]
fn secret_comes_from_a_file(#[case] key: &str, #[case] secret: &str) {
    let file = secret_file(&format!("{secret}\n"));
    let (named, path) = (format!("{key}_file"), file.path().to_str().expect("UTF-8"));
    for settings in
        [from_environment(&as_variable(&named), path), from_file(&as_file(&named, &format!("{path:?}")))]
    {
        let settings = settings.expect("the secret is right");
        assert!(settings.exposed_files.is_empty());
        let found = match key {
            "database.url" => settings.database.url,
            "broker.url" => settings.broker.url,
            "graph.proxy" => settings.graph.proxy,
            "graph.app_secret" => settings.graph.app_secret,
            "webhooks.verify_token" => settings.webhooks.verify_token,
            "security.token_key" => settings.security.token_key,
            "security.app_key" => settings.security.app_key,
            _ => settings.security.key,
        };
        assert_eq!(found.expose_secret(), secret);
    }
}

#[test]
fn secret_as_value_and_file_is_refused_by_both_keys() {
    let file = secret_file(SECRET);
    let path = file.path().display();
    let text =
        refusal(from_file(&format!("[graph]\napp_secret = \"{SECRET}\"\napp_secret_file = \"{path}\"\n")));
    assert!(text.contains("setting graph.app_secret: ") && text.contains("graph.app_secret_file"), "{text}");
    assert!(!text.contains(SECRET), "{text}");
    let settings = from_file(&format!("[graph]\napp_secret = \"\"\napp_secret_file = \"{path}\"\n"));
    assert_eq!(settings.expect("an empty value is none").graph.app_secret.expose_secret(), SECRET);
}

#[test]
fn prescribed_secret_wins_over_a_file() {
    let file = secret_file("postgres://host/log");
    let path = file.path().as_os_str().to_owned();
    let environment = [(OsString::from("META_DISPATCH__DATABASE__URL_FILE"), path)];
    let prescribed = vec![("database.url".to_owned(), "sqlite:demo.db".to_owned())];
    let settings = Settings::load_from(None, environment, prescribed).expect("all are right");
    assert_eq!(settings.database.url.expose_secret(), "sqlite:demo.db");
}

#[test]
fn missing_secret_file_is_refused_by_its_key() {
    let text = refusal(from_environment("META_DISPATCH__SECURITY__KEY_FILE", "/nowhere/key"));
    assert!(text.starts_with("setting security.key_file: /nowhere/key: "), "{text}");
    let text = refusal(from_environment("META_DISPATCH_SECURITY_KEY_FILE", "/nowhere/key"));
    assert!(text.ends_with("write META_DISPATCH__SECURITY__KEY_FILE"), "{text}");
}

#[test]
fn exposed_file_is_noted() {
    use std::os::unix::fs::PermissionsExt;
    let exposed = |text: &str| {
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        file.write_all(text.as_bytes()).expect("the file can be written");
        let wide = std::fs::Permissions::from_mode(0o644);
        std::fs::set_permissions(file.path(), wide).expect("modes can be set");
        let settings = Settings::load_from(Some(file.path()), [], Overrides::new()).expect("all are right");
        settings.exposed_files.into_iter().map(|file| (file.key, file.mode)).collect::<Vec<_>>()
    };
    assert!(exposed("[graph]\ntimeout = \"20s\"\napp_secret = \"\"\n").is_empty());
    assert!(exposed("[database]\nurl = \"postgres://user@host/log\"\n").is_empty());
    let told = [("--config".to_owned(), 0o644)];
    assert_eq!(exposed(&format!("[graph]\napp_secret = \"{SECRET}\"\n")), told);
    assert_eq!(exposed(&format!("[database]\nurl = \"postgres://user:{SECRET}@host/log\"\n")), told);
}
