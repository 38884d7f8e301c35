//! The loading of settings: defaults load, sources have their order, and every fault is one line that names
//! its key and reveals no secret.

mod secret_files;

use std::ffi::OsString;
use std::io::Write;

use rstest::rstest;

use super::*;

const SECRET: &str = "hunter2-hunter2";

fn from_file(text: &str) -> Result<Settings, SettingsError> {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(text.as_bytes()).expect("the file can be written");
    Settings::load_from(Some(file.path()), [], Overrides::new())
}

fn from_environment(name: &str, value: &str) -> Result<Settings, SettingsError> {
    Settings::load_from(None, [(OsString::from(name), OsString::from(value))], Overrides::new())
}

/// Return the error's text, after checking that it is one line.
fn refusal(result: Result<Settings, SettingsError>) -> String {
    let text = result.expect_err("the settings are wrong").to_string();
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}

/// Write `section.key` = value as a TOML file and as a variable's name.
fn as_file(key: &str, toml: &str) -> String {
    let (section, name) = key.rsplit_once('.').expect("keys have a section");
    format!("[{section}]\n{name} = {toml}\n")
}

fn as_variable(key: &str) -> String {
    format!("META_DISPATCH__{}", key.to_uppercase().replace('.', "__"))
}

#[test]
fn built_in_settings_are_the_documented_ones() {
    let settings = Settings::load_from(None, [], Overrides::new()).expect("defaults are right");
    assert_eq!(settings.database.url.expose_secret(), "sqlite:meta-dispatch.db");
    assert_eq!(settings.broker.url.expose_secret(), "embedded");
    assert_eq!(settings.graph.timeout, Duration::from_secs(30));
    assert_eq!(settings.graph.media_timeout, Duration::from_secs(95));
    assert_eq!(settings.http.listen, "127.0.0.1:8080".parse().expect("an address"));
    assert_eq!(settings.admin.listen, "127.0.0.1:9090".parse().expect("an address"));
    assert_eq!((settings.security.quota_rows_per_second, settings.security.quota_backlog), (0, 0));
    assert_eq!(settings.dispatch.on_ambiguous, OnAmbiguous::Hold);
    assert_eq!(settings.dispatch.on_5xx, On5xx::Retry);
    assert_eq!(settings.dispatch.valid_for, Duration::from_secs(86_400));
    assert_eq!(settings.limits.of(Class::INSTAGRAM), ClassLimits { text: 40, media: 10 });
    assert!(settings.limits.enforce_ceilings);
    assert_eq!(settings.events.publish, EventScope::None);
    assert_eq!(settings.broker.reply_to, ReplyScope::Own);
    assert!(settings.security.keys().expect("no key is right").is_empty());
    assert!(settings.security.token_keys().expect("no key is right").is_empty());
    assert!(settings.security.app_keys().expect("no key is right").is_empty());
    assert!(settings.http.proxies().expect("no proxies are right").is_empty());
    assert_eq!(settings.graph.proxy().expect("no proxy is right"), None);
}

#[test]
fn setting_without_effect_is_named() {
    let settings = Settings::load_from(None, [], Overrides::new()).expect("defaults are right");
    assert!(settings.without_effect().is_empty() && !settings.webhooks.is_on());
    let inbound = "[events]\ninbound = true\n";
    let named = |more: &str| {
        let settings = from_file(&format!("{inbound}{more}")).expect("right ones");
        settings.without_effect().first().map(|(key, reason)| format!("{key}: {reason}"))
    };
    let off = named("").expect("webhooks are off");
    assert!(off.starts_with("events.inbound: ") && off.contains("webhooks.verify_token"), "{off}");
    let webhooks = "[webhooks]\nverify_token = \"word\"\n";
    let embedded = named(webhooks).expect("the broker is embedded");
    assert!(embedded.contains("broker.url"), "{embedded}");
    assert_eq!(named(&format!("{webhooks}[broker]\nurl = \"amqp://host\"\n")), None);
}

#[test]
fn override_wins_over_environment_over_file() {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    write!(file, "[retry]\nbase = \"2s\"\ncap = \"1m\"\n[dispatch]\nconcurrency = 7\nmax_attempts = 3\n")
        .expect("the file can be written");
    let environment = [
        ("META_DISPATCH__RETRY__CAP", "2m"),
        ("META_DISPATCH__DISPATCH__CONCURRENCY", "8"),
        ("META_DISPATCH__LIMITS__MESSENGER__TEXT", "11"),
        ("META_DISPATCH__SECURITY__BAN_LOOPBACK", "true"),
        ("META_DISPATCH_TSID", "not a setting"),
    ]
    .map(|(name, value)| (OsString::from(name), OsString::from(value)));
    let overrides = vec![("dispatch.concurrency".to_owned(), "9".to_owned())];
    let settings = Settings::load_from(Some(file.path()), environment, overrides).expect("all are right");
    assert_eq!(settings.retry.base, Duration::from_secs(2));
    assert_eq!(settings.retry.cap, Duration::from_secs(120));
    assert_eq!(settings.dispatch.concurrency, 9);
    assert_eq!(settings.dispatch.max_attempts, 3);
    assert_eq!(settings.limits.of(Class::MESSENGER).text, 11);
    assert!(settings.security.ban_loopback);
}

#[rstest]
#[case::text_for_a_number("dispatch.concurrency", "many")]
#[case::a_truth_for_a_number("dispatch.concurrency", "yes")]
#[case::a_fraction_for_a_number("dispatch.max_attempts", "4.7")]
#[case::below_zero("database.max_connections", "-1")]
#[case::too_large_for_its_type("database.max_connections", "99999999999")]
#[case::too_few_connections("database.max_connections", "3")]
#[case::no_concurrency("dispatch.concurrency", "0")]
#[case::too_much_concurrency("dispatch.concurrency", "100001")]
#[case::no_attempts("dispatch.max_attempts", "0")]
#[case::no_trials("dispatch.line_trials", "0")]
#[case::fewer_refusals_than_none("dispatch.unknown_refusals", "-1")]
#[case::a_code_without_a_word("graph.codes", "4242")]
#[case::an_unknown_word_for_a_code("graph.codes", "4242=stop")]
#[case::a_code_10_that_is_retried("graph.codes", "10/1=retry")]
#[case::a_number_for_reconcile("dispatch.reconcile", "1")]
#[case::a_word_for_the_match_of_echoes("webhooks.match_instagram_echoes", "maybe")]
#[case::no_backlog("ingest.max_backlog", "0")]
#[case::no_connections("http.max_connections_per_address", "0")]
#[case::fewer_connections_than_none("http.max_connections", "-1")]
#[case::no_spool("ingest.max_spool", "0 B")]
#[case::a_mapped_network("http.trusted_proxies", "::ffff:10.0.0.0/104")]
#[case::no_rate("limits.messenger.text", "0")]
#[case::no_media_rate("limits.instagram.media", "0")]
#[case::a_number_for_a_truth("security.ban_loopback", "1")]
#[case::a_word_for_a_truth("limits.enforce_ceilings", "maybe")]
#[case::window_check("dispatch.window_check", "maybe")]
#[case::suppress_unreachable("dispatch.suppress_unreachable", "1")]
#[case::a_duration_without_unit("graph.timeout", "30")]
#[case::a_duration_of_an_unknown_unit("graph.timeout", "30 parsecs")]
#[case::a_duration_below_zero("graph.timeout", "-1s")]
#[case::an_empty_duration("graph.timeout", "")]
#[case::no_time_to_connect("graph.connect_timeout", "0s")]
#[case::a_timeout_below_the_connect_timeout("graph.timeout", "2s")]
#[case::a_media_timeout_below_the_connect_timeout("graph.media_timeout", "3s")]
#[case::a_short_lease("dispatch.lease", "999ms")]
#[case::an_endless_validity("dispatch.valid_for", "100000years")]
#[case::no_validity("dispatch.valid_for", "0s")]
#[case::a_base_above_the_cap("retry.base", "6m")]
#[case::no_idempotency("ingest.idempotency_ttl", "0s")]
#[case::a_long_default_wait("http.default_wait", "31s")]
#[case::an_unknown_policy("dispatch.on_ambiguous", "drop")]
#[case::an_unknown_policy_for_5xx("dispatch.on_5xx", "Retry")]
#[case::an_unknown_treatment_of_urls("attachments.on_unfetchable", "skip")]
#[case::a_word_for_a_truth("attachments.reuse", "sometimes")]
#[case::an_unknown_scope("events.publish", "some")]
#[case::an_unknown_reply_scope("broker.reply_to", "all")]
#[case::an_unknown_format("log.format", "xml")]
#[case::a_wrong_filter("log.filter", "info,[[")]
#[case::no_address("http.listen", "localhost")]
#[case::an_address_without_port("admin.listen", "127.0.0.1")]
#[case::the_same_address_twice("admin.listen", "127.0.0.1:8080")]
#[case::a_socket_without_path("admin.listen", "unix:")]
#[case::a_url_for_a_host("admin.hosts", "https://admin.example")]
#[case::a_port_beside_a_host("admin.hosts", "admin.example:9090")]
#[case::a_rate_below_zero("security.quota_rows_per_second", "-1")]
#[case::a_backlog_below_zero("security.quota_backlog", "-1")]
#[case::a_certificate_without_its_key("http.tls_cert", "/etc/tls/tls.crt")]
#[case::a_key_without_its_certificate("http.tls_key", "/etc/tls/tls.key")]
#[case::a_certificate_of_admin_without_its_key("admin.tls_cert", "/etc/tls/tls.crt")]
#[case::an_unknown_rule_for_plain_text("security.plaintext", "loopback")]
#[case::no_network("http.trusted_proxies", "10.0.0.0/33")]
#[case::no_proxy("http.trusted_proxies", "proxy.example")]
#[case::an_unknown_database("database.url", "mysql://host/name")]
#[case::a_broken_database_url("database.url", "postgres://user@[host/name")]
#[case::no_database_file("database.url", "sqlite:")]
#[case::a_parameter_of_a_database_file("database.url", "sqlite:log.db?mode=ro")]
#[case::an_unknown_parameter("database.url", "postgres://host/log?passwrd=x")]
#[case::a_parameter_of_libpq_alone("database.url", "postgres://host/log?sslpassword=x")]
#[case::an_unknown_broker("broker.url", "redis://host")]
#[case::a_broker_without_host("broker.url", "amqp:///vhost")]
#[case::a_broken_broker_url("broker.url", "amqp://host:port")]
#[case::no_url("graph.base_url", "graph.facebook.com")]
#[case::an_unknown_scheme("graph.base_url", "ftp://graph.facebook.com")]
#[case::a_query("graph.base_url", "https://graph.facebook.com/v25.0?x=1")]
#[case::no_instagram_url("graph.instagram_base_url", "graph.instagram.com")]
#[case::an_instagram_url_with_a_user("graph.instagram_base_url", "https://user@graph.instagram.com/v25.0")]
#[case::a_user("graph.base_url", "https://user@graph.facebook.com/v25.0")]
#[case::a_proxy_without_a_scheme("graph.proxy", "proxy.example:3128")]
#[case::a_proxy_of_another_kind("graph.proxy", "socks5://proxy.example:1080")]
#[case::a_proxy_without_host("graph.proxy", "http://")]
#[case::a_proxy_with_a_path("graph.proxy", "http://proxy.example:3128/x")]
#[case::a_proxy_with_a_query("graph.proxy", "http://proxy.example:3128?x=1")]
#[case::a_blank_proxy("graph.proxy", " ")]
#[case::a_proxy_whose_password_would_show("graph.proxy", "http:user:password@proxy.example:3128")]
#[case::a_line_end_in_a_secret("graph.app_secret", "abc\n")]
#[case::a_space_in_a_secret("webhooks.verify_token", "a b")]
#[case::a_short_key("security.key", "c2hvcnQ=")]
#[case::a_key_that_is_no_base64("security.key", "***")]
#[case::a_short_key_behind_a_right_one(
    "security.key",
    "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=,c2hvcnQ="
)]
fn wrong_value_is_refused_by_its_key(#[case] key: &str, #[case] value: &str) {
    let text = refusal(from_environment(&as_variable(key), value));
    assert!(text.starts_with(&format!("setting {key}: ")), "{text}");
    let text = refusal(from_file(&as_file(key, &format!("{value:?}"))));
    assert!(text.contains(&format!("setting {key}: ")), "{text}");
}

#[rstest]
#[case::an_unknown_section("[colour]\nred = 1\n", "colour")]
#[case::an_unknown_key("[graph]\ntimeouts = \"1s\"\n", "graph.timeouts")]
#[case::an_unknown_class("[limits.whatsapp]\ntext = 1\n", "limits.whatsapp")]
#[case::an_unknown_key_of_a_class("[limits.messenger]\naudio = 1\n", "limits.messenger.audio")]
#[case::a_key_outside_its_section("timeout = \"1s\"\n", "timeout")]
#[case::another_case("[graph]\nTimeout = \"1s\"\n", "graph.Timeout")]
#[case::a_key_in_quotes("\"graph.timeout\" = \"1s\"\n", "graph.timeout")]
#[case::a_line_end_in_a_key("\"a\\nb\" = 1\n", "a\\nb")]
#[case::a_value_for_a_section("graph = \"https://graph.facebook.com\"\n", "graph")]
#[case::a_section_for_a_value("[graph.timeout]\nseconds = 1\n", "graph.timeout")]
#[case::a_list_for_a_text("[http]\ntrusted_proxies = [\"10.0.0.1\"]\n", "http.trusted_proxies")]
#[case::a_truth_for_a_number("[dispatch]\nconcurrency = true\n", "dispatch.concurrency")]
#[case::a_fraction_for_a_number("[dispatch]\nmax_attempts = 4.7\n", "dispatch.max_attempts")]
#[case::a_number_for_a_truth("[security]\nban_loopback = 1\n", "security.ban_loopback")]
#[case::a_number_for_a_duration("[graph]\ntimeout = 30\n", "graph.timeout")]
#[case::a_truth_for_a_text("[webhooks]\nverify_token = true\n", "webhooks.verify_token")]
#[case::below_zero("[limits.messenger]\ntext = -5\n", "limits.messenger.text")]
fn wrong_shape_in_a_file_is_refused_by_its_key(#[case] file: &str, #[case] key: &str) {
    let text = refusal(from_file(file));
    assert!(text.contains(&format!("setting {key}: ")), "{text}");
}

#[rstest]
#[case::an_unknown_key("META_DISPATCH__GRAPH__TIMEOUTS")]
#[case::an_unknown_section("META_DISPATCH__COLOUR__RED")]
#[case::a_section("META_DISPATCH__GRAPH")]
#[case::too_deep("META_DISPATCH__GRAPH__TIMEOUT__SECONDS")]
#[case::one_underscore("META_DISPATCH__GRAPH_TIMEOUT")]
#[case::nothing("META_DISPATCH__")]
fn unknown_variable_is_refused_by_its_name(#[case] name: &str) {
    let text = refusal(from_environment(name, "1"));
    assert!(text.starts_with(&format!("environment variable {name}: ")), "{text}");
}

#[rstest]
#[case::one("{1}", &[1])]
#[case::commas("{2},{1}", &[2, 1])]
#[case::lines("{2}\n{1}\n", &[2, 1])]
#[case::both(" {1} , {2} ", &[1, 2])]
#[case::a_blank(" ", &[])]
fn keys_are_separated_by_commas_or_white_space(#[case] text: &str, #[case] expected: &[u8]) {
    use base64::Engine;
    let key = |byte: u8| base64::engine::general_purpose::STANDARD.encode([byte; 32]);
    let text = text.replace("{1}", &key(1)).replace("{2}", &key(2));
    let settings = from_environment("META_DISPATCH__SECURITY__KEY", &text).expect("the keys are right");
    let keys = settings.security.keys().expect("the keys are right");
    let first: Vec<u8> = keys.iter().map(|key| key[0]).collect();
    assert_eq!(first, expected);
}

#[test]
fn numbers_and_truths_may_be_written_as_text() {
    let settings = from_file("[dispatch]\nconcurrency = \"33\"\n[security]\nban_loopback = \"true\"\n")
        .expect("texts that read as their type are right");
    assert_eq!(settings.dispatch.concurrency, 33);
    assert!(settings.security.ban_loopback);
    let settings =
        from_environment("META_DISPATCH__WEBHOOKS__VERIFY_TOKEN", "12345").expect("digits are a text");
    assert_eq!(settings.webhooks.verify_token.expose_secret(), "12345");
}

#[test]
fn unreadable_file_is_refused_by_its_name() {
    let text = refusal(Settings::load_from(Some(Path::new("/nowhere/x.toml")), [], Overrides::new()));
    assert!(text.starts_with("settings file /nowhere/x.toml: "), "{text}");
    let text = refusal(from_file("[graph]\ntimeout = \n"));
    assert!(text.contains("line 2"), "{text}");
}

#[test]
fn unknown_override_is_refused() {
    let text = refusal(Settings::load_from(None, [], vec![("graph.colour".into(), "red".into())]));
    assert!(text.starts_with("setting graph.colour: "), "{text}");
}

#[cfg(unix)]
#[test]
fn non_utf_8_variable_is_refused_by_its_name() {
    use std::os::unix::ffi::OsStringExt;
    let value = OsString::from_vec(vec![0x66, 0xff]);
    let text = refusal(Settings::load_from(
        None,
        [(OsString::from("META_DISPATCH__BROKER__URL"), value)],
        Overrides::new(),
    ));
    assert!(text.starts_with("environment variable META_DISPATCH__BROKER__URL: "), "{text}");
}

#[rstest]
#[case("database.url", &format!("mysql://user:{SECRET}@host/x"))]
#[case("database.url", &format!("postgres://user:{SECRET}@[host/x"))]
#[case("database.url", &format!("postgres://host/log?sslpassword={SECRET}"))]
#[case("database.url", &format!("postgres://user:/{SECRET}@host/log"))]
#[case("database.url", &format!("postgres://user:12?{SECRET}@host/log"))]
#[case("database.url", &format!("postgres://user:12#{SECRET}@host/log"))]
#[case("database.url", &format!("postgres://host/log?password=a&{SECRET}"))]
#[case("database.url", &format!("postgres://host/log?password=a#{SECRET}"))]
#[case("broker.url", &format!("amqp://user:12/{SECRET}@host"))]
#[case("broker.url", &format!("amqp:/\t/user:{SECRET}@host"))]
#[case("broker.url", &format!("http://user:{SECRET}@host"))]
#[case("broker.url", &format!("amqp://user:{SECRET}@ho st"))]
#[case("graph.base_url", &format!("https://user:{SECRET}@[graph"))]
#[case("graph.base_url", &format!("https://user:{SECRET}@graph/v25.0"))]
#[case("graph.base_url", &format!("https://graph/v25.0?access_token={SECRET}"))]
#[case("graph.proxy", &format!("socks5://user:{SECRET}@proxy"))]
#[case("graph.proxy", &format!("http://user:{SECRET}@[proxy"))]
#[case("graph.app_secret", &format!("{SECRET} "))]
#[case("webhooks.verify_token", &format!("{SECRET}\t"))]
#[case("security.key", SECRET)]
#[case("security.token_key", SECRET)]
#[case("security.app_key", SECRET)]
fn errors_never_repeat_a_secret(#[case] key: &str, #[case] value: &str) {
    for text in [
        refusal(from_environment(&as_variable(key), value)),
        refusal(from_file(&as_file(key, &format!("{value:?}")))),
        refusal(from_file(&as_file(key, &format!("[{value:?}]")))),
        refusal(from_file(&as_file(key, &format!("\"{SECRET}")))),
        refusal(from_file(&as_file(key, SECRET))),
        refusal(from_environment(&as_variable(&format!("{key}s")), value)),
    ] {
        assert!(!text.contains(SECRET), "{text}");
    }
}

#[test]
fn shown_settings_hide_secrets() {
    use base64::Engine;
    let key = base64::engine::general_purpose::STANDARD.encode([7; 32]);
    let settings = from_file(&format!(
        "[database]\nurl = \"postgres://user:{SECRET}@host/log?password={SECRET}\"\n\
         [broker]\nurl = \"amqp://user:{SECRET}@host\"\n[graph]\napp_secret = \"{SECRET}\"\nproxy = \"http://user:{SECRET}@proxy:3128\"\n\
         [webhooks]\nverify_token = \"{SECRET}\"\n[security]\nkey = \"{key}\"\n"
    ))
    .expect("all are right");
    let shown = serde_json::to_value(&settings).expect("settings serialise");
    assert_eq!(shown["database"]["url"], "postgres://user:***@host/log?password=***");
    assert_eq!(shown["broker"]["url"], "amqp://user:***@host");
    assert_eq!(shown["graph"]["app_secret"], "[set]");
    assert_eq!(shown["graph"]["proxy"], "http://user:***@proxy:3128/");
    assert_eq!(shown["security"]["key"], "[set]");
    for text in [format!("{settings:?}"), format!("{settings:#?}"), shown.to_string()] {
        assert!(!text.contains(SECRET) && !text.contains(&key), "{text}");
    }
    let defaults = Settings::load_from(None, [], Overrides::new()).expect("defaults are right");
    assert_eq!(serde_json::to_value(&defaults).expect("settings serialise")["security"]["key"], "[not set]");
}
