//! The cost of processes: their CPU time, peak memory and writes, as Linux counts them in /proc; and the
//! servers, found by their port.

use std::collections::HashMap;

use anyhow::bail;
use procfs::process::{FDTarget, Process, Stat};

/// Return the process that listens on this port of 127.0.0.1.
pub fn listener(port: u16) -> anyhow::Result<i32> {
    let sockets: Vec<u64> = procfs::net::tcp()?
        .into_iter()
        .chain(procfs::net::tcp6().unwrap_or_default())
        .filter(|socket| socket.state == procfs::net::TcpState::Listen && socket.local_address.port() == port)
        .map(|socket| socket.inode)
        .collect();
    for process in procfs::process::all_processes()?.flatten() {
        let Ok(descriptors) = process.fd() else { continue };
        let holds = descriptors.flatten().any(
            |descriptor| matches!(descriptor.target, FDTarget::Socket(inode) if sockets.contains(&inode)),
        );
        if holds {
            return Ok(process.pid());
        }
    }
    bail!("cannot see which process listens on port {port}")
}

/// Return the CPU seconds of the process and all its descendants, ended ones included.
pub fn cpu_seconds(root: i32) -> anyhow::Result<f64> {
    let ticks: u64 = family(root)?
        .iter()
        .map(|stat| stat.utime + stat.stime + (stat.cutime + stat.cstime).max(0) as u64)
        .sum();
    Ok(ticks as f64 / procfs::ticks_per_second() as f64)
}

/// Return the peak resident memory of the process and its present descendants, in MB.
pub fn peak_memory(root: i32) -> anyhow::Result<f64> {
    let kilobytes: u64 = family(root)?
        .iter()
        .filter_map(|stat| Process::new(stat.pid).and_then(|process| process.status()).ok())
        .filter_map(|status| status.vmhwm)
        .sum();
    Ok(kilobytes as f64 / 1024.0)
}

/// Return the bytes that the process has caused to be written to storage so far.
pub fn bytes_written(pid: i32) -> anyhow::Result<u64> {
    Ok(Process::new(pid)?.io()?.write_bytes)
}

fn family(root: i32) -> anyhow::Result<Vec<Stat>> {
    let stats: Vec<Stat> =
        procfs::process::all_processes()?.flatten().filter_map(|process| process.stat().ok()).collect();
    let parents: HashMap<i32, i32> = stats.iter().map(|stat| (stat.pid, stat.ppid)).collect();
    let descends = |mut pid: i32| {
        while pid != root {
            match parents.get(&pid) {
                Some(&parent) if parent > 0 => pid = parent,
                _ => return false,
            }
        }
        true
    };
    Ok(stats.into_iter().filter(|stat| descends(stat.pid)).collect())
}
