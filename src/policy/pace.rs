use super::classify::PauseDemand;
use crate::message::Class;
use governor::{
    Quota, RateLimiter,
    clock::{Clock, Reference},
    middleware::NoOpMiddleware,
    nanos::Nanos,
    state::{InMemoryState, direct::NotKeyed},
};
use std::num::NonZeroU32;
use std::ops::Add;
use std::time::Duration;
pub struct Pacer<C: Clock> {
    limiter: RateLimiter<NotKeyed, InMemoryState, C, NoOpMiddleware<C::Instant>>,
    clock: C,
}
pub fn quota(limit: u32) -> (u32, u32) {
    if limit <= 20 {
        (limit, 1)
    } else {
        let burst = 1 + limit.div_ceil(50);
        (limit + 1 - burst, burst)
    }
}
impl<C: Clock + Clone> Pacer<C> {
    pub fn new(limit: u32, clock: C) -> Self {
        let (rate, burst) = quota(limit);
        let q = Quota::with_period(Duration::from_secs(1) / rate)
            .unwrap()
            .allow_burst(NonZeroU32::new(burst).unwrap());
        let limiter = RateLimiter::direct_with_clock(q, clock.clone());
        limiter.check_n(NonZeroU32::new(burst).unwrap()).unwrap().unwrap();
        Pacer { limiter, clock }
    }
    pub fn check(&self) -> Result<(), Duration> {
        self.limiter.check().map_err(|n| n.wait_time_from(self.clock.now()))
    }
}
#[derive(Debug, Clone)]
pub struct Ceilings;
impl Ceilings {
    pub fn of(_: &crate::settings::LimitSettings) -> Self {
        Ceilings
    }
}
#[derive(Debug)]
pub struct Limits {
    pub text: u32,
    pub media: u32,
    pub clamped_from: Option<u32>,
}
impl Limits {
    pub fn of(_: Class, _: &Ceilings, t: Option<u32>, m: Option<u32>) -> Self {
        Limits { text: t.unwrap_or(40), media: m.unwrap_or(10), clamped_from: None }
    }
}
#[derive(Default)]
pub struct PauseLadder;
impl PauseLadder {
    pub fn next(&mut self, d: &PauseDemand) -> Duration {
        d.first
    }
    pub fn reset(&mut self) {}
}
