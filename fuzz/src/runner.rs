//! The run of a target: the corpus first, then mutations until the time is over.
//!
//! A target runs in a thread of its own, whose stack is as deep as those of the program, and is watched: an input that
//! takes too long fails like one that breaks a property. Never here: a retry.

use std::any::Any;
use std::collections::HashSet;
use std::panic::{self, AssertUnwindSafe};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::mutate::Mutator;
use crate::targets::Target;
use crate::{corpus, shape};

/// As `main.rs` of the program has it.
const STACK_BYTES: usize = 256 * 1024 * 1024;
const LONGEST_RUN: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Entries of new shapes that one run adds to the corpus at most, and their longest: the corpus is part of the
/// repository.
const MOST_KEPT: usize = 50;
const LONGEST_KEPT: usize = 1024;

#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Time for mutations, after the corpus.
    pub time: Duration,
    pub seed: u64,
    /// Whether inputs of new shapes are added to the corpus.
    pub keep: bool,
    /// Whether each input is written into a file before it runs: for an end of the whole process.
    pub trace: bool,
}

#[derive(Debug, Clone, Copy)]
pub struct Report {
    pub runs: u64,
    pub shapes: usize,
    pub kept: usize,
    pub took: Duration,
}

/// Run a target. The error names the file of an input that broke a property.
pub fn run(target: &'static Target, options: Options) -> anyhow::Result<Report> {
    let entries = corpus::entries(target.name);
    let entries = entries.with_context(|| format!("the corpus of {} cannot be read", target.name))?;
    watched(target, move |current| Fuzzer::new(target, options, current).run(entries))
}

/// Run a target with one input.
pub fn run_input(target: &'static Target, input: Vec<u8>) -> anyhow::Result<()> {
    let options = Options { time: Duration::ZERO, seed: 0, keep: false, trace: false };
    watched(target, move |current| Fuzzer::new(target, options, current).is_new_shape(&input).map(drop))
}

/// Do the work in a thread with a deep stack, and look at the time of each input.
fn watched<T: Send + 'static>(
    target: &'static Target,
    work: impl FnOnce(Arc<Current>) -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    let current = Arc::new(Current::default());
    let watched = current.clone();
    let (ended, result) = mpsc::channel();
    let thread = thread::Builder::new().name(target.name.to_owned()).stack_size(STACK_BYTES);
    // The receiver is gone only after an input that took too long.
    thread.spawn(move || drop(ended.send(work(current))))?;
    loop {
        match result.recv_timeout(LOOK_EVERY) {
            Ok(result) => return result,
            Err(RecvTimeoutError::Timeout) => {
                if let Some(input) = watched.late() {
                    return Err(failed(target, &input, &format!("it takes longer than {LONGEST_RUN:?}")));
                }
            }
            Err(RecvTimeoutError::Disconnected) => bail!("the runner of {} has failed", target.name),
        }
    }
}

/// The input that runs, and since when.
#[derive(Default)]
struct Current(Mutex<Option<(Instant, Vec<u8>)>>);

impl Current {
    fn begin(&self, input: &[u8]) {
        *self.lock() = Some((Instant::now(), input.to_vec()));
    }

    fn end(&self) {
        *self.lock() = None;
    }

    fn late(&self) -> Option<Vec<u8>> {
        let current = self.lock();
        current.as_ref().filter(|(began, _)| began.elapsed() > LONGEST_RUN).map(|(_, input)| input.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Option<(Instant, Vec<u8>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Fuzzer {
    target: &'static Target,
    options: Options,
    current: Arc<Current>,
    shapes: HashSet<u64>,
    runs: u64,
    kept: usize,
}

impl Fuzzer {
    fn new(target: &'static Target, options: Options, current: Arc<Current>) -> Fuzzer {
        Fuzzer { target, options, current, shapes: HashSet::new(), runs: 0, kept: 0 }
    }

    fn run(mut self, entries: Vec<Vec<u8>>) -> anyhow::Result<Report> {
        let mut pool = entries;
        for entry in &pool {
            self.is_new_shape(entry)?;
        }
        if pool.is_empty() {
            pool.push(Vec::new());
        }
        let mut mutator = Mutator::new(self.options.seed, self.target.words);
        let began = Instant::now();
        while began.elapsed() < self.options.time {
            let input = mutator.mutated(&pool);
            if self.is_new_shape(&input)? {
                self.keep(&input)?;
                pool.push(input);
            }
        }
        Ok(Report { runs: self.runs, shapes: self.shapes.len(), kept: self.kept, took: began.elapsed() })
    }

    /// Run the target with an input, and return whether the run has a new shape.
    fn is_new_shape(&mut self, input: &[u8]) -> anyhow::Result<bool> {
        if self.options.trace {
            let folder = corpus::failures(self.target.name);
            std::fs::create_dir_all(&folder)?;
            std::fs::write(folder.join("last"), input)?;
        }
        shape::take();
        self.runs += 1;
        self.current.begin(input);
        let ended = panic::catch_unwind(AssertUnwindSafe(|| (self.target.run)(input)));
        self.current.end();
        match ended {
            Ok(()) => Ok(self.shapes.insert(shape::take())),
            Err(panic) => Err(failed(self.target, input, &words_of(panic.as_ref()))),
        }
    }

    fn keep(&mut self, input: &[u8]) -> anyhow::Result<()> {
        if self.options.keep && self.kept < MOST_KEPT && input.len() <= LONGEST_KEPT {
            corpus::save(&corpus::folder(self.target.name), input)?;
            self.kept += 1;
        }
        Ok(())
    }
}

fn words_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it panics").to_owned()
}

/// Write an input that broke a property into a file, and return the error that names it.
fn failed(target: &Target, input: &[u8], why: &str) -> anyhow::Error {
    let name = target.name;
    match corpus::save(&corpus::failures(name), input) {
        Ok(file) => {
            anyhow::anyhow!("{name}: {why}\nrun the input again: fuzz/run {name} --input {}", file.display())
        }
        Err(error) => anyhow::anyhow!("{name}: {why}\nthe input {input:?} cannot be written: {error}"),
    }
}
