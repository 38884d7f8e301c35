//! Settings with a secret among them. The first two lines are the parts of the secret before and behind a mark, the rest
//! is put behind the secret in the settings file.
//!
//! Properties: an error is one line without the mark; settings that are accepted show it nowhere, neither as `check` prints
//! them nor in debug output.

use std::ffi::OsString;
use std::io::Write;

use meta_dispatch::settings::{Overrides, Settings};

use crate::shape::{note, number_of};
use crate::source::first_line;

pub const WORDS: &[&str] = &[
    "[graph]\n",
    "[database]\n",
    "[security]\n",
    "[log]\n",
    "filter = \"debug\"\n",
    "timeout = \"30s\"\n",
    "url = ",
    "app_secret = ",
    "concurrency = 7\n",
    "\"",
    "'''",
    "\"\"\"",
    "/",
    "?",
    "#",
    "@",
    ":",
    "&",
    "=",
    "[",
    "%40",
    "12/",
    ":1?",
    "\\",
    "://",
    "sslmode=disable",
    "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=",
];

const MARK: &str = "hUnTeR2";

/// The settings that are secrets, and what stands around the secret; `{}` is the secret.
const PLACES: [(&str, &str, &str); 10] = [
    ("graph", "app_secret", "{}"),
    ("security", "key", "{}"),
    ("security", "token_key", "{}"),
    ("security", "app_key", "{}"),
    ("webhooks", "verify_token", "{}"),
    ("database", "url", "postgres://user:{}@db.example/log"),
    ("database", "url", "postgres://db.example/log?user=user&password={}"),
    ("broker", "url", "amqp://user:{}@mq.example/%2f"),
    ("broker", "url", "amqps://user:{}@mq.example"),
    ("graph", "proxy", "http://user:{}@proxy.example:3128"),
];

pub fn target(input: &[u8]) {
    let (before, rest) = first_line(input);
    let (behind, rest) = first_line(rest);
    let [before, behind, rest] =
        [before, behind, rest].map(|part| String::from_utf8_lossy(part).into_owned());
    if [&before, &behind, &rest].iter().any(|part| part.contains(MARK)) {
        return;
    }
    let number = number_of(input);
    let (section, name, around) = PLACES[(number % 10) as usize];
    let secret = format!("{before}{MARK}{behind}");
    // In a query an unescaped `&` ends the password, and what follows is a parameter by its name.
    if around.contains("password=") && secret.contains('&') && secret.contains('=') {
        return;
    }
    let value = around.replace("{}", &secret);
    let loaded = match number / 10 % 4 {
        0 => {
            let variable = format!("META_DISPATCH__{}__{}", section.to_uppercase(), name.to_uppercase());
            from_file(&rest, Some((variable, value)))
        }
        // JSON writes a text as TOML does. The other forms break where the value holds a quote or a line end.
        1 => from_file(&format!("[{section}]\n{name} = {}\n{rest}", serde_json::json!(value)), None),
        2 => from_file(&format!("[{section}]\n{name} = \"{value}\"\n{rest}"), None),
        _ => from_file(&format!("[{section}]\n{name} = '''{value}'''\n{rest}"), None),
    };
    match loaded {
        Ok(settings) => {
            note((section, name));
            let shown = serde_json::to_string(&settings).expect("settings serialise");
            for text in [shown, format!("{settings:?}"), settings.database.name()] {
                assert!(!text.contains(MARK), "{text}");
            }
        }
        Err(error) => {
            note((section, name, error.len().min(200) / 20));
            assert!(!error.contains(MARK), "{error}");
            assert_eq!(error.lines().count(), 1, "{error:?}");
        }
    }
}

/// Load a settings file and a variable; return the text of the error.
fn from_file(text: &str, variable: Option<(String, String)>) -> Result<Settings, String> {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(text.as_bytes()).expect("the file can be written");
    let environment = variable.map(|(name, value)| (OsString::from(name), OsString::from(value)));
    Settings::load_from(Some(file.path()), environment, Overrides::new()).map_err(|error| error.to_string())
}
