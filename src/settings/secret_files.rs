//! Secrets from files: a secret's key with `_file` behind it names the file that holds the secret. The modes of such
//! files are looked at, and a file that other users of the machine can read is a warning.
//!
//! Never here: the text of a secret in an error.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use config::{Map, Value, ValueKind};

use super::{SettingsError, redact};

/// The settings that are secrets, each a line here and a `SecretString` in [`Settings`](super::Settings).
const SECRETS: &[(&str, SecretKind)] = &[
    ("database.url", SecretKind::Url),
    ("broker.url", SecretKind::Url),
    ("graph.proxy", SecretKind::Url),
    ("graph.app_secret", SecretKind::Text),
    ("security.key", SecretKind::Text),
    ("security.token_key", SecretKind::Text),
    ("security.app_key", SecretKind::Text),
    ("webhooks.verify_token", SecretKind::Text),
];

/// The end of the key that names the file of a secret.
const SUFFIX: &str = "_file";
/// Far above the length of any secret, in bytes.
const LONGEST: usize = 64 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SecretKind {
    /// Secret as a whole.
    Text,
    /// A URL, which is a secret where it holds a password.
    Url,
}

impl SecretKind {
    fn is_secret(self, value: &str) -> bool {
        match self {
            SecretKind::Text => !value.is_empty(),
            SecretKind::Url => redact::holds_password(value),
        }
    }
}

/// Add the keys of files to the known settings.
pub(super) fn add_keys(known: &mut Map<String, Value>) {
    for (key, _) in SECRETS {
        if let Some((table, name)) = entry(known, key) {
            table.insert(format!("{name}{SUFFIX}"), Value::from(""));
        }
    }
}

/// Return the section of a key and the key's name there.
fn entry<'a, 'k>(
    values: &'a mut Map<String, Value>,
    key: &'k str,
) -> Option<(&'a mut Map<String, Value>, &'k str)> {
    let (section, name) = key.split_once('.')?;
    match &mut values.get_mut(section)?.kind {
        ValueKind::Table(table) => Some((table, name)),
        _ => None,
    }
}

/// Return the listed key that equals this one.
fn listed(key: &str) -> Option<&'static str> {
    SECRETS.iter().map(|(listed, _)| *listed).find(|listed| *listed == key)
}

/// The secrets that the sources give, each as a value or as the path of its file.
#[derive(Default)]
pub(super) struct SecretFiles {
    paths: BTreeMap<&'static str, PathBuf>,
    values: BTreeSet<&'static str>,
}

impl SecretFiles {
    /// Take the paths out of the values of a settings file. Return whether the settings file holds a secret itself.
    pub fn take_from(&mut self, values: &mut Map<String, Value>) -> bool {
        let mut holds_secret = false;
        for (key, kind) in SECRETS {
            let Some((table, name)) = entry(values, key) else { continue };
            let path = table.remove(&format!("{name}{SUFFIX}"));
            let text = |value: Value| value.into_string().unwrap_or_default();
            if let Some(value) = table.get(name).cloned().map(text) {
                holds_secret |= kind.is_secret(&value);
                self.note_value(key, &value);
            }
            if let Some(path) = path.map(text) {
                self.note_path(key, &path);
            }
        }
        holds_secret
    }

    /// Note a variable of the environment; return whether it names a file.
    pub fn note(&mut self, key: &str, value: &str) -> bool {
        if let Some(secret) = key.strip_suffix(SUFFIX).and_then(listed) {
            self.note_path(secret, value);
            return true;
        }
        if let Some(secret) = listed(key) {
            self.note_value(secret, value);
        }
        false
    }

    /// Note a prescribed setting, which takes precedence in either form; return whether it names a file.
    pub fn prescribe(&mut self, key: &str, value: &str) -> bool {
        if let Some(secret) = listed(key.strip_suffix(SUFFIX).unwrap_or(key)) {
            self.values.remove(secret);
            self.paths.remove(secret);
        }
        self.note(key, value)
    }

    /// An empty path is none.
    fn note_path(&mut self, secret: &'static str, path: &str) {
        if path.is_empty() {
            self.paths.remove(secret);
        } else {
            self.paths.insert(secret, path.into());
        }
    }

    /// An empty value is none.
    fn note_value(&mut self, secret: &'static str, value: &str) {
        if !value.is_empty() {
            self.values.insert(secret);
        }
    }

    /// Read the files: keys with their secrets. A file that others may read is added to `exposed`.
    pub fn read(self, exposed: &mut Vec<ExposedFile>) -> Result<Vec<(&'static str, String)>, SettingsError> {
        let SecretFiles { paths, values } = self;
        let both = paths.keys().find(|secret| values.contains(*secret));
        if let Some(secret) = both {
            let demand = format!("is set, and so is {secret}{SUFFIX}: keep one of the two");
            return Err(SettingsError::of(secret, demand));
        }
        paths
            .into_iter()
            .map(|(secret, path)| {
                let key = format!("{secret}{SUFFIX}");
                exposed.extend(ExposedFile::look(&key, &path));
                Ok((secret, content(&key, &path)?))
            })
            .collect()
    }
}

/// Return the content of a secret's file without the line end behind it.
fn content(key: &str, path: &Path) -> Result<String, SettingsError> {
    let wrong = |why: &dyn Display| SettingsError::of(key, format_args!("{}: {why}", path.display()));
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| wrong(&error))?;
    file.take(LONGEST as u64 + 1).read_to_end(&mut bytes).map_err(|error| wrong(&error))?;
    if bytes.len() > LONGEST {
        return Err(wrong(&"is longer than 64 KiB"));
    }
    let mut text = String::from_utf8(bytes).map_err(|_| wrong(&"is not UTF-8"))?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    if text.is_empty() { Err(wrong(&"is empty")) } else { Ok(text) }
}

/// A file with a secret that other users of the machine may read or change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExposedFile {
    /// The setting or the option that names the file.
    pub key: String,
    pub path: PathBuf,
    pub mode: u32,
}

impl ExposedFile {
    /// Return the file, if others may open it. A file that cannot be looked at fails where it is read.
    pub fn look(key: &str, path: &Path) -> Option<ExposedFile> {
        let mode = exposed_mode(&std::fs::metadata(path).ok()?)?;
        Some(ExposedFile { key: key.to_owned(), path: path.to_owned(), mode })
    }

    /// Warn of the file in the log.
    pub fn warn(&self) {
        let ExposedFile { key, path, mode } = self;
        tracing::warn!(
            key,
            mode = format!("{mode:04o}"),
            "file with a secret is open to other users: they can read it; chmod 600 {}",
            path.display()
        );
    }
}

/// Return the mode of a file that its group or others may open.
pub fn exposed_mode(file: &Metadata) -> Option<u32> {
    let mode = file.mode() & 0o777;
    (file.is_file() && mode & 0o077 != 0).then_some(mode)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn file(bytes: &[u8], mode: u32) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        fs::write(file.path(), bytes).expect("the file can be written");
        fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).expect("modes can be set");
        file
    }

    #[rstest::rstest]
    #[case::no_line_end(b"hunter2", "hunter2")]
    #[case::a_line_end(b"hunter2\n", "hunter2")]
    #[case::a_line_end_of_windows(b"hunter2\r\n", "hunter2")]
    #[case::one_of_two_line_ends(b"hunter2\n\n", "hunter2\n")]
    #[case::blanks(b" hunter2 ", " hunter2 ")]
    fn content_is_the_file_without_a_line_end(#[case] bytes: &[u8], #[case] secret: &str) {
        let file = file(bytes, 0o600);
        assert_eq!(content("graph.app_secret_file", file.path()).expect("it can be read"), secret);
    }

    #[rstest::rstest]
    #[case::empty(b"\n", "is empty")]
    #[case::not_text(b"\xff", "is not UTF-8")]
    #[case::endless(&[b'x'; LONGEST + 2], "is longer than 64 KiB")]
    fn unusable_content_is_refused(#[case] bytes: &[u8], #[case] why: &str) {
        let file = file(bytes, 0o600);
        let refused = content("graph.app_secret_file", file.path()).expect_err("no secret").to_string();
        assert!(
            refused.starts_with("setting graph.app_secret_file: /") && refused.ends_with(why),
            "{refused}"
        );
    }

    #[rstest::rstest]
    #[case::own(0o600, false)]
    #[case::own_and_read_only(0o400, false)]
    #[case::of_the_group(0o640, true)]
    #[case::of_all(0o644, true)]
    fn wide_mode_is_exposed(#[case] mode: u32, #[case] is_exposed: bool) {
        let file = file(b"hunter2", mode);
        let found = ExposedFile::look("security.key_file", file.path());
        assert_eq!(found.map(|found| found.mode), is_exposed.then_some(mode));
    }
}
