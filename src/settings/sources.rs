//! The sources of settings, and the errors of wrong ones: by full key, or by the name of the variable.
//!
//! The `config` crate merges the sources. Its types are lenient (`true` counts as 1, 4.7 as 5): each
//! source is first compared with the built-in file, which holds every key. The comparison also finds unknown
//! keys.

use std::ffi::OsString;
use std::path::Path;

use config::{Config, ConfigError, File, FileFormat, Map, Source, Value, ValueKind};
use serde::Deserialize;

use super::names::{self, PREFIX};
use super::secret_files::{self, ExposedFile, SecretFiles};
use super::{DEFAULTS, Overrides, Settings, SettingsError};

/// The allowed values of settings, where the library's message would not list them.
const CHOICES: &[(&str, &str)] = &[
    ("dispatch.on_ambiguous", "must be hold or retry"),
    ("dispatch.on_5xx", "must be retry or hold"),
    ("attachments.on_unfetchable", "must be refuse or hold"),
    ("broker.reply_to", "must be own or any"),
    ("events.publish", "must be none, outcomes or all"),
    ("security.plaintext", "must be private, never or anywhere"),
    ("log.format", "must be text or json"),
    ("graph.base_url", "must be an absolute http(s) URL"),
    ("graph.instagram_base_url", "must be an absolute http(s) URL"),
    ("admin.listen", "must be an address with a port such as 127.0.0.1:9090, or unix:/path of a socket"),
    ("security.quota_rows_per_second", "must be an integer from 1 on, or 0 for no quota"),
];

impl Settings {
    /// Merge a file, environment variables and overrides over the built-in settings, and check the result.
    pub fn load_from(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        overrides: Overrides,
    ) -> Result<Settings, SettingsError> {
        let mut known = File::from_str(DEFAULTS, FileFormat::Toml)
            .collect()
            .map_err(|error| SettingsError(format!("built-in settings: {}", one_line(&error))))?;
        secret_files::add_keys(&mut known);
        let (mut secrets, mut exposed) = (SecretFiles::default(), Vec::new());
        let mut sources = Config::builder().add_source(File::from_str(DEFAULTS, FileFormat::Toml));
        if let Some(path) = file {
            let mut values = values_of(&known, path)?;
            if secrets.take_from(&mut values) {
                exposed.extend(ExposedFile::look("--config", path));
            }
            sources = sources.add_source(FileValues(values));
        }
        let mut settings = from_environment(&known, environment)?;
        settings.retain(|(key, value)| !secrets.note(key, value));
        for (key, value) in overrides {
            compare(&known, &key, &Value::from(value.as_str()))?;
            if !secrets.prescribe(&key, &value) {
                settings.push((key, value));
            }
        }
        let of_files = secrets.read(&mut exposed)?;
        settings.extend(of_files.into_iter().map(|(key, secret)| (key.to_owned(), secret)));
        for (key, value) in settings {
            compare(&known, &key, &Value::from(value.as_str()))?;
            sources = sources.set_override(&key, value).map_err(|_| unknown(&key))?;
        }
        let merged =
            sources.build().map_err(|error| SettingsError(format!("settings: {}", one_line(&error))))?;
        let mut settings: Settings = serde_path_to_error::deserialize(merged).map_err(|error| {
            let key = error.path().to_string();
            let choice = CHOICES.iter().find(|(named, _)| *named == key);
            let demand =
                choice.map_or_else(|| without_value(error.inner()), |(_, words)| (*words).to_owned());
            SettingsError::of(&key, demand)
        })?;
        settings.exposed_files = exposed;
        settings.copy_plaintext();
        settings.check()?;
        Ok(settings)
    }
}

/// The values of a settings file.
#[derive(Debug, Clone)]
struct FileValues(Map<String, Value>);

impl Source for FileValues {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        Ok(self.0.clone())
    }
}

/// Read a settings file.
fn values_of(known: &Map<String, Value>, path: &Path) -> Result<Map<String, Value>, SettingsError> {
    let wrong = |why: String| SettingsError(format!("settings file {}: {why}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let file = File::from_str(text.trim_start_matches('\u{feff}'), FileFormat::Toml);
    let values = file.collect().map_err(|error| wrong(one_line(&error)))?;
    compare_section(known, "", &values).map_err(|error| wrong(error.to_string()))?;
    Ok(values)
}

/// Return the settings among the environment's variables, as (key, value).
fn from_environment(
    known: &Map<String, Value>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Overrides, SettingsError> {
    let mut settings = Overrides::new();
    let variables = names::variables(known);
    for (name, value) in environment {
        let Some(name) = name.to_str() else { continue };
        let wrong = |why: &str| SettingsError(format!("environment variable {name}: {why}"));
        let Some(rest) = name.strip_prefix(PREFIX) else {
            match names::mistyped(name, &variables) {
                Some(meant) => return Err(wrong(&format!("is not read; write {meant}"))),
                None => continue,
            }
        };
        let key = rest.to_lowercase().replace("__", ".");
        match find(known, &key) {
            None => {
                let meant = names::nearest(name, &variables);
                let meant = meant.map_or_else(String::new, |meant| format!("; write {meant}"));
                return Err(wrong(&format!("there is no such setting{meant}")));
            }
            Some(ValueKind::Table(_)) => {
                return Err(wrong("is a section; set META_DISPATCH__SECTION__KEY"));
            }
            Some(_) => {}
        }
        let value = value.into_string().map_err(|_| wrong("is not UTF-8"))?;
        settings.push((key, value));
    }
    Ok(settings)
}

fn find<'a>(known: &'a Map<String, Value>, key: &str) -> Option<&'a ValueKind> {
    match key.split_once('.') {
        None => known.get(key).map(|value| &value.kind),
        Some((section, rest)) => match &known.get(section)?.kind {
            ValueKind::Table(table) => find(table, rest),
            _ => None,
        },
    }
}

fn compare_section(
    known: &Map<String, Value>,
    section: &str,
    given: &Map<String, Value>,
) -> Result<(), SettingsError> {
    // In order of key: the same file always names the same fault.
    let mut keys: Vec<&String> = given.keys().collect();
    keys.sort();
    for name in keys {
        let key = if section.is_empty() { name.clone() } else { format!("{section}.{name}") };
        let Some(default) = known.get(name) else { return Err(unknown(&key)) };
        match (&default.kind, &given[name].kind) {
            (ValueKind::Table(known), ValueKind::Table(given)) => compare_section(known, &key, given)?,
            (ValueKind::Table(_), _) => return Err(SettingsError::of(&key, "is a section, not a value")),
            (default, given) => compare_value(&key, default, given)?,
        }
    }
    Ok(())
}

fn compare(known: &Map<String, Value>, key: &str, given: &Value) -> Result<(), SettingsError> {
    compare_value(key, find(known, key).ok_or_else(|| unknown(key))?, &given.kind)
}

/// Check that a value is of its default's type. Numbers and booleans may be written as text.
fn compare_value(key: &str, default: &ValueKind, given: &ValueKind) -> Result<(), SettingsError> {
    let (fits, expected) = match (default, given) {
        (ValueKind::I64(_), ValueKind::String(text)) => (text.parse::<i64>().is_ok(), "expected an integer"),
        (ValueKind::I64(_), given) => (matches!(given, ValueKind::I64(_)), "expected an integer"),
        (ValueKind::Boolean(_), ValueKind::String(text)) => {
            (matches!(text.as_str(), "true" | "false"), "expected true or false")
        }
        (ValueKind::Boolean(_), given) => (matches!(given, ValueKind::Boolean(_)), "expected true or false"),
        // A number may be the text of a secret; a number in place of a duration or an address is refused
        // where it is read.
        (_, given) => (matches!(given, ValueKind::String(_) | ValueKind::I64(_)), "expected a text"),
    };
    if fits { Ok(()) } else { Err(SettingsError::of(key, expected)) }
}

fn unknown(key: &str) -> SettingsError {
    SettingsError::of(key, "there is no such setting")
}

/// Read a URL, for `serde(deserialize_with)`, with an error that does not repeat the URL.
pub(super) fn url<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<url::Url, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}

/// Return the library's message without the rejected value, which may be a secret.
fn without_value(error: &ConfigError) -> String {
    match error {
        ConfigError::Type { expected, .. } => format!("expected {expected}"),
        ConfigError::At { error, .. } => without_value(error),
        other => match one_line(other) {
            text if text.ends_with("expected a duration") => {
                "expected a duration such as 250ms, 30s, 5m or 24h".to_owned()
            }
            text => text,
        },
    }
}

/// Return a parser's message in one line: only the place and the fault. The TOML parser shows the offending
/// line of the file, which may hold a secret.
fn one_line(error: &ConfigError) -> String {
    let text = match error {
        ConfigError::FileParse { cause, .. } => cause.to_string(),
        other => other.to_string(),
    };
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or_default().to_owned();
    match lines.next_back() {
        Some(last) => format!("{first}: {last}"),
        None => first,
    }
}
