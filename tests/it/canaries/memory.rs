//! A look at the memory of another process, as Linux shows it to root.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::support::secrets::Secret;

/// Bytes that are read at a time.
const BLOCK: usize = 1 << 20;
/// A block begins with the end of the one before, so that no secret lies between two.
const OVERLAP: usize = 256;

/// Return the names of the secrets that the writable memory of a process holds in plain.
pub fn held(pid: i32, secrets: &[Secret]) -> io::Result<BTreeSet<&'static str>> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let memory = File::open(format!("/proc/{pid}/mem"))?;
    let untouched = vec![0_u8; BLOCK];
    let (mut block, mut held) = (vec![0; BLOCK], BTreeSet::new());
    for (from, to) in maps.lines().filter_map(writable) {
        let mut at = from;
        while at < to {
            let length = usize::try_from(to - at).unwrap_or(BLOCK).min(BLOCK);
            // A part that was given back meanwhile is not there.
            let read = memory.read_at(&mut block[..length], at).unwrap_or(0);
            let bytes = &block[..read];
            // Stacks are mostly memory that was never used.
            if *bytes != untouched[..read] {
                held.extend(
                    secrets.iter().filter(|secret| secret.is_plain_in(bytes)).map(|secret| secret.name),
                );
            }
            at += if length == BLOCK { (BLOCK - OVERLAP) as u64 } else { length as u64 };
        }
    }
    Ok(held)
}

/// Return the bounds of a writable part: a line is `from-to rw-p …`.
fn writable(line: &str) -> Option<(u64, u64)> {
    let (bounds, rest) = line.split_once(' ')?;
    let (from, to) = bounds.split_once('-')?;
    let bound = |text| u64::from_str_radix(text, 16).ok();
    rest.starts_with("rw").then_some((bound(from)?, bound(to)?))
}

#[test]
fn memory_of_a_child_holds_what_it_was_given() {
    let [given, other] = [(); 2].map(|()| hex::encode(rand::random::<[u8; 16]>()));
    let secrets = [Secret::new("given", &given), Secret::new("not given", &other)];
    let mut child =
        std::process::Command::new("sleep").arg("60").env("GIVEN", &given).spawn().expect("it starts");
    let pid = i32::try_from(child.id()).expect("ids are small");
    let looked = held(pid, &secrets);
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    match looked {
        Ok(held) => assert_eq!(held, BTreeSet::from(["given"])),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            println!("the memory of a child is not looked at, as this user may not read it: {error}");
        }
        Err(error) => panic!("memory cannot be read: {error}"),
    }
}

#[test]
fn only_writable_parts_are_read() {
    assert_eq!(writable("7f00-7fff rw-p 00000000 00:00 0 [heap]"), Some((0x7f00, 0x7fff)));
    for line in
        ["7f00-7fff r--p 00000000 00:00 0", "7f00-7fff r-xp 00000000 00:00 0", "7f00-7fff ---p", "nonsense"]
    {
        assert_eq!(writable(line), None, "{line}");
    }
}
