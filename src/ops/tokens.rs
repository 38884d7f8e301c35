//! The tokens of the admin listener (`admin.token_file`): one a line, each with a role.
//!
//! The file is read again when it has changed. While it cannot be read, or holds a wrong line, the tokens that
//! were read last stay in force. Never here: a token in clear beyond the reading, or in the log.

use std::fs::Metadata;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, anyhow, bail, ensure};
use ring::digest;
use subtle::ConstantTimeEq;
use tokio::sync::Mutex;

/// How often the file is looked at, while requests come.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The shortest token.
const MIN_CHARS: usize = 16;
/// A longer file is none of tokens.
const MAX_BYTES: u64 = 64 * 1024;

/// The role of a token's owner. Each role includes the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AdminRole {
    /// GET and HEAD.
    Read,
    /// Every method.
    Operate,
}

/// The tokens of a file.
pub struct TokenFile {
    path: PathBuf,
    known: Mutex<Known>,
}

struct Known {
    looked_at: Instant,
    /// The file that was looked at last.
    version: Option<Version>,
    tokens: Tokens,
}

/// Marks by which a change of the file is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Version {
    inode: u64,
    length: u64,
    modified: Option<SystemTime>,
}

impl Version {
    fn of(file: &Metadata) -> Version {
        Version { inode: file.ino(), length: file.len(), modified: file.modified().ok() }
    }
}

/// The SHA-256 of each token, and its role.
#[derive(Debug, Default)]
struct Tokens(Vec<([u8; 32], AdminRole)>);

impl TokenFile {
    /// Read the file.
    pub async fn open(path: &Path) -> Result<TokenFile> {
        let (version, tokens) = read(path).await?;
        ensure!(!tokens.0.is_empty(), "{}: no token in it; write one a line", path.display());
        let known = Known { looked_at: Instant::now(), version: Some(version), tokens };
        Ok(TokenFile { path: path.to_owned(), known: Mutex::new(known) })
    }

    /// Return the role of a token, if it is one of the file's.
    pub async fn role(&self, token: &str) -> Option<AdminRole> {
        let mut known = self.known.lock().await;
        if known.looked_at.elapsed() >= LOOK_EVERY {
            known.looked_at = Instant::now();
            self.look(&mut known).await;
        }
        known.tokens.role(token)
    }

    async fn look(&self, known: &mut Known) {
        let version = tokio::fs::metadata(&self.path).await.ok().as_ref().map(Version::of);
        if version == known.version {
            return;
        }
        // A version that cannot be read is reported once.
        known.version = version;
        match read(&self.path).await {
            Ok((version, tokens)) => {
                tracing::info!(
                    tokens = tokens.0.len(),
                    "admin.token_file has changed: its tokens are in force"
                );
                (known.version, known.tokens) = (Some(version), tokens);
            }
            Err(error) => tracing::error!(
                "setting admin.token_file: {error:#}: the tokens that were read before stay in force; repair the file"
            ),
        }
    }
}

async fn read(path: &Path) -> Result<(Version, Tokens)> {
    let shown = path.display();
    let file = tokio::fs::metadata(path).await.with_context(|| format!("cannot read {shown}"))?;
    ensure!(file.len() <= MAX_BYTES, "{shown}: over 64 KiB; write one token a line");
    let mode = file.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        tracing::warn!(
            mode = format_args!("{mode:o}"),
            "admin.token_file can be read by others: restrict it with chmod 600"
        );
    }
    let text = tokio::fs::read_to_string(path).await.with_context(|| format!("cannot read {shown}"))?;
    let tokens = Tokens::parse(&text).map_err(|error| anyhow!("{shown}: {error}"))?;
    Ok((Version::of(&file), tokens))
}

impl Tokens {
    /// Read the lines of a file; an error names a line by its number.
    fn parse(text: &str) -> Result<Tokens> {
        let mut tokens = Vec::new();
        for (number, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let number = number + 1;
            let (role, token) = match line.split_once(':') {
                None => (AdminRole::Operate, line),
                Some(("operate", token)) => (AdminRole::Operate, token.trim()),
                Some(("read", token)) => (AdminRole::Read, token.trim()),
                Some(_) => bail!("line {number}: the role is read or operate"),
            };
            let is_token = token.len() >= MIN_CHARS && token.bytes().all(|byte| byte.is_ascii_graphic());
            ensure!(is_token, "line {number}: a token has {MIN_CHARS} printable ASCII characters or more");
            tokens.push((hash(token), role));
        }
        Ok(Tokens(tokens))
    }

    /// Compare a token with all of them, in the same time wherever it stands.
    fn role(&self, token: &str) -> Option<AdminRole> {
        let given = hash(token);
        let mut found = None;
        for (known, role) in &self.0 {
            if bool::from(known.as_slice().ct_eq(given.as_slice())) {
                found = found.max(Some(*role));
            }
        }
        found
    }
}

fn hash(token: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
    hash
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const READER: &str = "reader-0123456789";
    const OPERATOR: &str = "operator-0123456789";

    #[test]
    fn lines_have_a_role_or_operate() {
        let text = format!("# tokens\n\nread:{READER}\r\n operate: {OPERATOR}\nbare-0123456789abc\n");
        let tokens = Tokens::parse(&text).expect("each line is right");
        assert_eq!(tokens.role(READER), Some(AdminRole::Read));
        assert_eq!(tokens.role(OPERATOR), Some(AdminRole::Operate));
        assert_eq!(tokens.role("bare-0123456789abc"), Some(AdminRole::Operate));
        for other in ["", "reader-012345678", "reader-01234567890", "# tokens", "read:reader-0123456789"] {
            assert_eq!(tokens.role(other), None, "{other}");
        }
    }

    #[test]
    fn token_of_two_lines_has_the_greater_role() {
        let tokens = Tokens::parse(&format!("operate:{READER}\nread:{READER}\n")).expect("right");
        assert_eq!(tokens.role(READER), Some(AdminRole::Operate));
    }

    #[rstest]
    #[case::unknown_role("write:reader-0123456789")]
    #[case::short("read:short")]
    #[case::blank_inside("reader 0123456789")]
    #[case::no_ascii("leser-0123456789-ä")]
    fn wrong_line_is_named_by_its_number_alone(#[case] line: &str) {
        let error = Tokens::parse(&format!("read:{READER}\n{line}\n")).expect_err("the line is wrong");
        assert!(error.to_string().starts_with("line 2: "), "{error}");
        assert!(!error.to_string().contains("0123456789"), "{error}");
    }

    #[tokio::test]
    async fn missing_and_empty_files_are_refused_by_name() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("tokens");
        let error = TokenFile::open(&path).await.err().expect("it is missing");
        assert!(format!("{error:#}").contains("tokens"), "{error:#}");
        std::fs::write(&path, "# none\n").expect("the folder can be written");
        let error = TokenFile::open(&path).await.err().expect("it is empty");
        assert!(format!("{error:#}").contains("no token"), "{error:#}");
    }

    #[tokio::test]
    async fn changed_file_is_read_and_a_wrong_one_is_not() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("tokens");
        std::fs::write(&path, format!("{READER}\n")).expect("the folder can be written");
        let file = TokenFile::open(&path).await.expect("it is right");
        let look = async || {
            let mut known = file.known.lock().await;
            file.look(&mut known).await;
            (known.tokens.role(READER), known.tokens.role(OPERATOR))
        };
        assert_eq!(look().await, (Some(AdminRole::Operate), None));
        std::fs::write(&path, format!("read:{READER}\noperate:{OPERATOR}\n")).expect("it can be written");
        let changed = (Some(AdminRole::Read), Some(AdminRole::Operate));
        assert_eq!(look().await, changed);
        std::fs::write(&path, "nonsense\n").expect("it can be written");
        assert_eq!(look().await, changed, "a wrong file changes nothing");
        std::fs::remove_file(&path).expect("it is there");
        assert_eq!(look().await, changed);
        std::fs::write(&path, format!("{OPERATOR}\n")).expect("it can be written");
        assert_eq!(look().await, (None, Some(AdminRole::Operate)));
    }
}
