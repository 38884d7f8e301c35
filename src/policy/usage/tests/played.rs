//! A played Meta: a rolling budget, a stranger who uses a part of it, workers that come and go, and headers as they come.
//! Deterministic: steps of virtual time, and no randomness.

use std::collections::VecDeque;

use crate::channel::Class;
use crate::policy::classify::{GraphAnswer, Subject};
use crate::policy::usage::{Budget, read};

/// Steps of a window.
const STEPS: u32 = 1_500;
const WINDOWS: u32 = 10;
/// The time from a call to its answer, in seconds.
const LATENCY: f64 = 0.05;
const PAGE: &str = "1";

/// When answers tell the use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Headers {
    Always,
    /// On every 50th answer.
    Rarely,
    /// As it was a tenth of a window ago, at most 10 s.
    Late,
    /// Three of four are cut, words, or impossible numbers.
    Broken,
}

#[derive(Debug, Clone)]
pub struct Plan {
    pub calls: u32,
    pub window: f64,
    /// The calls that the lines would make, as a multiple of the budget.
    pub demand: f64,
    pub workers: usize,
    pub lines: usize,
    /// The share of the budget that others use.
    pub stranger: f64,
    pub headers: Headers,
    /// A worker dies in the middle: another begins with its row, or takes its lines.
    pub kill: bool,
}

#[derive(Debug)]
pub struct Played {
    /// The percent of the budget that was used, by all.
    pub used: f64,
    pub refused: u32,
    pub of_lines: Vec<u32>,
    pub budget: Budget,
    pub ended: f64,
}

struct Line {
    worker: usize,
    next: f64,
    sent: u32,
}

struct Answer {
    at: f64,
    worker: usize,
    begun: f64,
    ticket: f64,
    is_taken: bool,
    header: Option<String>,
}

struct Meta {
    plan: Plan,
    /// The times of calls that count.
    used: VecDeque<f64>,
    /// The use at each step, for late headers.
    before: VecDeque<(f64, usize)>,
    answers: u32,
    strangers: f64,
    taken: u32,
}

impl Meta {
    fn new(plan: &Plan) -> Meta {
        let strangers = (plan.stranger * f64::from(plan.calls)) as u32;
        let used =
            (0..strangers).map(|n| plan.window * (f64::from(n) / f64::from(strangers) - 1.0)).collect();
        Meta { plan: plan.clone(), used, before: VecDeque::new(), answers: 0, strangers: 0.0, taken: 0 }
    }

    fn step(&mut self, now: f64, length: f64) {
        let window = self.plan.window;
        while self.used.front().is_some_and(|at| *at <= now - window) {
            self.used.pop_front();
        }
        self.strangers += self.plan.stranger * f64::from(self.plan.calls) / window * length;
        while self.strangers >= 1.0 {
            self.strangers -= 1.0;
            self.take(now);
        }
        self.before.push_back((now, self.used.len()));
        let late = (window / 10.0).min(10.0);
        while self.before.front().is_some_and(|(at, _)| *at < now - late) {
            self.before.pop_front();
        }
    }

    fn take(&mut self, now: f64) -> bool {
        let has_room = self.used.len() < self.plan.calls as usize;
        if has_room {
            self.used.push_back(now);
            self.taken += 1;
        }
        has_room
    }

    fn call(&mut self, now: f64) -> (bool, Option<String>) {
        let is_taken = self.take(now);
        self.answers += 1;
        let used = match self.plan.headers {
            Headers::Late => self.before.front().map_or(0, |(_, used)| *used),
            _ => self.used.len(),
        };
        let percent = 100 * used as u32 / self.plan.calls;
        let percent = if is_taken { percent } else { percent.max(100) };
        let whole = format!(r#"{{"{PAGE}":[{{"type":"messenger","call_count":{percent},"total_time":1}}]}}"#);
        let header = match (self.plan.headers, self.answers % 4) {
            (Headers::Rarely, _) => self.answers.is_multiple_of(50).then_some(whole),
            (Headers::Broken, 1) => Some(whole[..whole.len() / 2].to_owned()),
            (Headers::Broken, 2) => Some(whole.replace(&format!(":{percent},"), r#":"many","#)),
            (Headers::Broken, 3) => Some(whole.replace(&format!(":{percent},"), ":-7,")),
            _ => Some(whole),
        };
        (is_taken, header)
    }
}

pub fn play(plan: &Plan) -> Played {
    let mut meta = Meta::new(plan);
    let mut workers: Vec<Budget> = vec![Budget::default(); plan.workers];
    workers.iter_mut().for_each(|worker| worker.share(plan.workers));
    let mut lines: Vec<Line> =
        (0..plan.lines).map(|n| Line { worker: n % plan.workers, next: 0.0, sent: 0 }).collect();
    let pace = plan.window * plan.lines as f64 / (plan.demand * f64::from(plan.calls));
    let subject = Subject { class: Some(Class::MESSENGER), page_id: Some(PAGE.into()), ..Subject::default() };
    let (mut answers, mut refused): (VecDeque<Answer>, u32) = (VecDeque::new(), 0);
    let length = plan.window / f64::from(STEPS);
    let mut now = 0.0;
    for step in 0..STEPS * WINDOWS {
        now = f64::from(step) * length;
        meta.step(now, length);
        while answers.front().is_some_and(|answer| answer.at <= now) {
            let Some(answer) = answers.pop_front() else { break };
            hear(&mut workers[answer.worker], &answer, &subject, now);
        }
        if plan.kill && step == STEPS * WINDOWS / 2 {
            kill(&mut workers, &mut lines, &mut answers, now);
        }
        for turn in 0..plan.lines {
            let line = &mut lines[(turn + step as usize) % plan.lines];
            while line.next <= now && workers[line.worker].admits(now, false).calls > 0 {
                line.next = line.next.max(now - length) + pace;
                let worker = &mut workers[line.worker];
                worker.spend(now, false);
                let (is_taken, header) = meta.call(now);
                refused += u32::from(!is_taken);
                line.sent += u32::from(is_taken);
                let (begun, ticket) = (now, worker.ticket());
                answers.push_back(Answer {
                    at: now + LATENCY,
                    worker: line.worker,
                    begun,
                    ticket,
                    is_taken,
                    header,
                });
            }
        }
    }
    let budget = workers.swap_remove(0);
    let used = 100.0 * f64::from(meta.taken) / f64::from(plan.calls * WINDOWS);
    Played { used, refused, of_lines: lines.iter().map(|line| line.sent).collect(), budget, ended: now }
}

fn hear(worker: &mut Budget, answer: &Answer, subject: &Subject, now: f64) {
    let business_usage = answer.header.clone();
    let usage = read(&GraphAnswer { business_usage, ..GraphAnswer::default() }, subject);
    match answer.is_taken {
        true => worker.taken(now, usage.line.is_some()),
        false => worker.refused(now, 0.0),
    }
    if let Some(reading) = usage.line {
        worker.hear(reading, answer.ticket, answer.begun, now);
    }
}

/// Kill the first worker. The only one is followed by another that begins with its row; else the others take its lines.
fn kill(workers: &mut [Budget], lines: &mut [Line], answers: &mut VecDeque<Answer>, now: f64) {
    answers.retain(|answer| answer.worker != 0);
    if workers.len() == 1 {
        let mut next = Budget::default();
        if let Some(learned) = workers[0].learned(now) {
            next.begin_with(&learned, 0.0, 1.0, now);
        }
        workers[0] = next;
        return;
    }
    let living = workers.len() - 1;
    for (n, line) in lines.iter_mut().enumerate() {
        if line.worker == 0 {
            line.worker = 1 + n % living;
        }
    }
}
