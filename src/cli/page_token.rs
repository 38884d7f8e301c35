//! Reads a page access token (PAT) from standard input or from a file.
//!
//! It is never an argument, which every user of the machine could read; and no error repeats it.

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::PathBuf;

use anyhow::{Context, bail, ensure};
use secrecy::SecretString;

use super::output::tell_note;

/// Far above the length of any of Meta's tokens.
const LONGEST: u64 = 16 * 1024;

/// Where the page access token comes from.
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
    /// Reads the token, without white space around it.
    pub fn read(&self) -> anyhow::Result<SecretString> {
        match &self.pat_file {
            Some(path) => {
                let named = || path.display().to_string();
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

fn page_token(source: impl Read) -> anyhow::Result<SecretString> {
    let mut bytes = Vec::new();
    source.take(LONGEST + 1).read_to_end(&mut bytes)?;
    ensure!(bytes.len() as u64 <= LONGEST, "the page access token is longer than {LONGEST} bytes");
    let Ok(text) = String::from_utf8(bytes) else { bail!("the page access token is not text") };
    let token = text.trim();
    ensure!(!token.is_empty(), "the page access token is empty");
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
        let token = page_token(" EAAtoken\r\n".as_bytes()).expect("a good token");
        assert_eq!(token.expose_secret(), "EAAtoken");
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
    #[case::endless(&[b'E'; LONGEST as usize + 1])]
    fn a_text_that_can_be_no_page_token_is_refused_without_being_shown(#[case] bytes: &[u8]) {
        let error = page_token(bytes).expect_err("no token");
        assert!(!format!("{error:#} {error:?}").contains("EAA"));
    }
}
