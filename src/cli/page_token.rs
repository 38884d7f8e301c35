//! Reads a page access token (PAT) from standard input or from a file, and seals it for the database.
//!
//! The token is never an argument, which every user of the machine could read; and no error repeats it.

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::PathBuf;

use anyhow::{Context, bail, ensure};
use secrecy::SecretString;
use secrecy::zeroize::Zeroizing;

use super::output::tell_note;
use super::parse::wrapping;
use crate::domain::LineId;
use crate::seal::{KeyRing, Purpose, is_sealed};
use crate::settings::ExposedFile;
use crate::text::trimmed;

/// Far above the length of any of Meta's tokens.
const LONGEST: u64 = 16 * 1024;

/// The source of the page access token.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub struct PageTokenSource {
    /// Read the page access token from standard input
    #[arg(long)]
    pat_stdin: bool,
    /// Read the page access token from a file
    #[arg(long, value_name = "FILE")]
    pat_file: Option<PathBuf>,
}

impl PageTokenSource {
    /// Read the token, without white space around it.
    pub fn read(&self) -> anyhow::Result<SecretString> {
        match &self.pat_file {
            Some(path) => {
                let named = || path.display().to_string();
                ExposedFile::look("--pat-file", path).iter().for_each(ExposedFile::warn);
                page_token(File::open(path).with_context(named)?).with_context(named)
            }
            None => {
                let stdin = io::stdin();
                if stdin.is_terminal() {
                    tell_note("Paste the page access token, press Enter, then Ctrl-D:");
                }
                page_token(stdin.lock()).context("standard input")
            }
        }
    }
}

/// Return the token as it is stored: sealed for its line, if there is a key.
pub fn stored(token: SecretString, line: LineId, keys: &KeyRing) -> SecretString {
    match keys.first() {
        Some(key) => key.seal(&token, Purpose::PageToken(line)),
        None => token,
    }
}

fn page_token(source: impl Read) -> anyhow::Result<SecretString> {
    // In its full length from the start: a buffer that grows leaves copies of the token.
    let mut bytes = Zeroizing::new(Vec::<u8>::with_capacity(LONGEST as usize + 1));
    source.take(LONGEST + 1).read_to_end(&mut bytes)?;
    ensure!(bytes.len() as u64 <= LONGEST, "the page access token is longer than {LONGEST} bytes");
    let Ok(text) = std::str::from_utf8(&bytes) else { bail!("the page access token is not text") };
    let token = trimmed(text);
    ensure!(!token.is_empty(), "the page access token is empty");
    if let Some(wrapping) = wrapping(token) {
        bail!("the page access token has {wrapping}: give the token alone");
    }
    ensure!(
        !is_sealed(token),
        "the page access token begins with `enc:`, as sealed ones do: give the token as Meta shows it"
    );
    ensure!(
        token.bytes().all(|byte| byte.is_ascii_graphic()),
        "the page access token holds spaces, control characters or letters outside ASCII"
    );
    Ok(SecretString::from(token))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn white_space_around_a_page_token_is_cut_off() {
        for text in [" EAAtoken\r\n", "\u{feff}EAAtoken\u{a0}", "\u{200b}EAAtoken\u{200b}\n"] {
            let token = page_token(text.as_bytes()).expect("a good token");
            assert_eq!(token.expose_secret(), "EAAtoken");
        }
    }

    #[rstest]
    #[case::empty(b"")]
    #[case::blank(b" \n\t")]
    #[case::two_lines(b"EAAone\nEAAtwo")]
    #[case::a_space(b"EAA one")]
    #[case::nul(b"EAA\0one")]
    #[case::an_escape(b"EAA\x1bone")]
    #[case::a_letter_outside_ascii("EAAé".as_bytes())]
    #[case::no_text(b"EAA\xff")]
    #[case::quotes(b"\"EAAone\"")]
    #[case::brackets(b"<EAAone>")]
    #[case::a_name(b"access_token=EAAone")]
    #[case::json(br#"{"access_token":"EAAone","token_type":"bearer"}"#)]
    #[case::sealed(b"enc:v1:0011aabb:EAAone")]
    #[case::sealed_by_a_later_version(b"ENC:v9:EAAone")]
    #[case::endless(&[b'E'; LONGEST as usize + 1])]
    fn malformed_token_is_refused_and_not_shown(#[case] bytes: &[u8]) {
        let error = page_token(bytes).expect_err("no token");
        assert!(!format!("{error:#} {error:?}").contains("EAA"));
    }
}
