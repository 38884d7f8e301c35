//! The socket of the admin listener: a TCP address, or a Unix socket that the user of the process alone may
//! open.
//!
//! The file of a Unix socket is removed when the process stops, and a file that a killed process left is
//! removed at the next start. Never here: requests.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use axum::Router;
use tokio::net::{TcpListener, UnixListener, UnixSocket};
use tokio_util::sync::CancellationToken;

use crate::edge::{Listening, ServeOptions, serve};
use crate::settings::AdminAddress;

/// Connections that wait to be accepted.
const BACKLOG: u32 = 128;
/// The mode of the socket: only the user of the process may open it.
const MODE: u32 = 0o600;

/// The bound listener.
pub struct AdminListener {
    listening: Listening,
    address: AdminAddress,
    file: Option<SocketFile>,
}

/// The file of a Unix socket; removed when dropped.
struct SocketFile {
    path: PathBuf,
    /// Device and inode, which is not given again while the socket is open. Another process may have put a
    /// socket of its own in this place.
    identity: (u64, u64),
}

impl AdminListener {
    /// Listen on the address of `admin.listen`.
    pub async fn bind(listen: &AdminAddress) -> Result<AdminListener> {
        let bound = match listen {
            AdminAddress::Tcp(address) => bind_tcp(*address).await,
            AdminAddress::Unix(path) => bind_unix(path),
        };
        bound.with_context(|| format!("setting admin.listen: cannot listen on {listen}"))
    }

    /// Return the address, with the port that the system gave.
    pub fn address(&self) -> &AdminAddress {
        &self.address
    }

    /// Serve a router until `stop`.
    pub async fn serve(self, router: Router, options: ServeOptions, stop: CancellationToken) {
        let AdminListener { listening, file, .. } = self;
        serve(listening, router, options, stop).await;
        drop(file);
    }
}

async fn bind_tcp(address: std::net::SocketAddr) -> io::Result<AdminListener> {
    let listener = TcpListener::bind(address).await?;
    let address = AdminAddress::Tcp(listener.local_addr()?);
    Ok(AdminListener { listening: Listening::Tcp(listener), address, file: None })
}

fn bind_unix(path: &Path) -> io::Result<AdminListener> {
    remove_stale(path)?;
    let socket = UnixSocket::new_stream()?;
    socket.bind(path)?;
    let file = SocketFile::of(path)?;
    // No client can connect before the socket listens.
    fs::set_permissions(path, Permissions::from_mode(MODE))?;
    let listener: UnixListener = socket.listen(BACKLOG)?;
    let address = AdminAddress::Unix(path.to_owned());
    Ok(AdminListener { listening: Listening::Unix(listener), address, file: Some(file) })
}

/// Remove a socket on which nobody listens any more.
fn remove_stale(path: &Path) -> io::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !found.file_type().is_socket() {
        return Err(io::Error::other("the path is taken by a file that is not a socket; choose another"));
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(io::Error::other("another process listens there; choose another path")),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) => Err(error),
    }
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<SocketFile> {
        Ok(SocketFile { path: path.to_owned(), identity: identity(path)? })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|found| found == self.identity)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(
                %error,
                path = %self.path.display(),
                "cannot remove the socket of the admin listener: the next start removes it"
            );
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let found = fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(path: &Path) -> AdminAddress {
        AdminAddress::Unix(path.to_owned())
    }

    #[tokio::test]
    async fn socket_is_private_and_removed_at_the_end() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("admin.sock");
        let listener = AdminListener::bind(&address(&path)).await.expect("the path is free");
        let found = fs::symlink_metadata(&path).expect("the socket is there");
        assert_eq!((found.permissions().mode() & 0o777, found.file_type().is_socket()), (0o600, true));
        let taken = AdminListener::bind(&address(&path)).await.err().expect("it is in use");
        assert!(format!("{taken:#}").contains("another process listens there"), "{taken:#}");
        drop(listener);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn stale_socket_is_replaced() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("admin.sock");
        // A killed process leaves its file.
        drop(std::os::unix::net::UnixListener::bind(&path).expect("the path is free"));
        assert!(path.exists());
        let listener = AdminListener::bind(&address(&path)).await.expect("nobody listens there");
        assert!(UnixStream::connect(&path).is_ok());
        drop(listener);
    }

    #[tokio::test]
    async fn other_file_is_left_alone() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("log.db");
        fs::write(&path, "rows").expect("the folder can be written");
        let refused = AdminListener::bind(&address(&path)).await.err().expect("the path is taken");
        let text = format!("{refused:#}");
        assert!(text.starts_with("setting admin.listen: ") && text.contains("not a socket"), "{text}");
        assert_eq!(fs::read_to_string(&path).expect("it is there"), "rows");
    }

    #[tokio::test]
    async fn socket_of_another_process_is_left_alone() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("admin.sock");
        let listener = AdminListener::bind(&address(&path)).await.expect("the path is free");
        fs::remove_file(&path).expect("it is there");
        let _other = std::os::unix::net::UnixListener::bind(&path).expect("the path is free");
        drop(listener);
        assert!(path.exists());
    }
}
