//! The folders of a target: its corpus, which is part of the repository, and the inputs that broke a property.

use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::shape::number_of;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

pub fn folder(target: &str) -> PathBuf {
    Path::new(ROOT).join("corpus").join(target)
}

pub fn failures(target: &str) -> PathBuf {
    Path::new(ROOT).join("failures").join(target)
}

/// Return the entries of a target's corpus, in order of their files' names.
pub fn entries(target: &str) -> io::Result<Vec<Vec<u8>>> {
    let files = fs::read_dir(folder(target))?.map(|entry| entry.map(|entry| entry.path()));
    let mut files = files.collect::<io::Result<Vec<_>>>()?;
    files.sort();
    files.iter().map(fs::read).collect()
}

/// Write an input into a folder, under a name that is made of its content.
pub fn save(folder: &Path, input: &[u8]) -> io::Result<PathBuf> {
    fs::create_dir_all(folder)?;
    let file = folder.join(format!("{:016x}", number_of(input)));
    fs::write(&file, input)?;
    Ok(file)
}
