//! Bodies of jobs, read with bounds: a program with the right to write to a work queue could otherwise make a worker
//! hold any number of lines and messages. Never here: whether a message is sent, which a claim decides.

use crate::domain::{JOB_VERSION, Job, MAX_JOB_WORK};

/// Longest body of a job. The program's own are far below it: `MAX_JOB_BYTES` of recipients, texts and waiters, which
/// JSON may write six times as long, what stands around them, and `MAX_JOB_WORK` campaigns. The work of a longer one
/// is found by a scan.
const LONGEST_JOB: usize = 4 << 20;

/// Why a body is not a job of this version.
#[derive(Debug, thiserror::Error)]
pub enum UnreadableJob {
    #[error("its version is {0}, this program knows {JOB_VERSION}")]
    Version(u64),
    #[error("its body of {0} bytes is longer than any job")]
    TooLong(usize),
    #[error("it names {0} pieces of work, more than any job")]
    TooMuch(usize),
    #[error("its body cannot be read: {0}")]
    Body(#[from] serde_json::Error),
}

pub fn read_job(body: &[u8]) -> Result<Job, UnreadableJob> {
    #[derive(serde::Deserialize)]
    struct Header {
        v: u64,
    }
    if body.len() > LONGEST_JOB {
        return Err(UnreadableJob::TooLong(body.len()));
    }
    let Header { v } = serde_json::from_slice(body)?;
    if v != u64::from(JOB_VERSION) {
        return Err(UnreadableJob::Version(v));
    }
    let job: Job = serde_json::from_slice(body)?;
    match job.work.len() {
        named if named > MAX_JOB_WORK => Err(UnreadableJob::TooMuch(named)),
        _ => Ok(job),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn job_of_another_version_is_not_unreadable() {
        assert!(read_job(br#"{"v":2,"work":[[41,7,"high",false,"",1,2,[]]]}"#).is_ok());
        for (v, body) in
            [(1, &br#"{"v":1,"lines":[[7,"high",1,2,2]]}"#[..]), (3, br#"{"v":3,"rows":"otherwise"}"#)]
        {
            let other = read_job(body).unwrap_err();
            assert!(matches!(other, UnreadableJob::Version(version) if version == v), "{other}");
        }
        for body in
            [&b"nonsense"[..], br#"{"v":2}"#, br#"{"v":2,"work":[[41,7,"low",false,"",1,2,[]]]}"#, b"\xff"]
        {
            assert!(matches!(read_job(body), Err(UnreadableJob::Body(_))));
        }
    }

    #[test]
    fn bytes_and_work_of_a_job_are_bounded() {
        let of = |work: usize| {
            let work = vec![r#"[41,7,"high",false,"",1,2,[]]"#; work].join(",");
            format!(r#"{{"v":2,"work":[{work}]}}"#).into_bytes()
        };
        assert!(read_job(&of(MAX_JOB_WORK)).is_ok());
        assert!(matches!(read_job(&of(MAX_JOB_WORK + 1)), Err(UnreadableJob::TooMuch(_))));
        let mut padded = of(1);
        padded.resize(LONGEST_JOB, b' ');
        assert!(read_job(&padded).is_ok());
        padded.push(b' ');
        assert!(matches!(read_job(&padded), Err(UnreadableJob::TooLong(_))));
    }
}
