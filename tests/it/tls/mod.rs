//! TLS: of the listeners, of the connections to Graph, RabbitMQ and PostgreSQL, and of the commands of senders; and what
//! may be said in plain text.

mod clients;
mod commands;
mod listener;

use std::path::PathBuf;

use crate::support::certificates::{Authority, Files};

/// The names of the servers in these tests.
const NAMES: [&str; 2] = ["localhost", "127.0.0.1"];

/// The certificate that a server shows to a client that trusts one authority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shown {
    Good,
    Expired,
    OfAnotherHost,
    OfUnknownIssuer,
}

/// The files of a server, and those of its client.
struct Scene {
    authority: Authority,
    /// The authority that the client trusts.
    ca: PathBuf,
    files: Files,
    folder: tempfile::TempDir,
}

impl Scene {
    fn with(shown: Shown) -> Scene {
        let authority = Authority::new();
        let folder = tempfile::tempdir().expect("a temporary folder");
        let issued = match shown {
            Shown::Good => authority.issue(&NAMES),
            Shown::Expired => authority.issue_expired(&NAMES),
            Shown::OfAnotherHost => authority.issue(&["other.example"]),
            Shown::OfUnknownIssuer => Authority::new().issue(&NAMES),
        };
        let (ca, files) = (authority.file(folder.path()), issued.files(folder.path()));
        Scene { authority, ca, files, folder }
    }
}
