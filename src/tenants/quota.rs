//! What a tenant may hold at once, and how often its keys may ask.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Tenant;

/// JSON numbers are exact up to it.
const MOST: u64 = 1 << 53;

/// What a tenant may hold and do. What is not set is not bounded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema, clap::Args)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Sessions at once
    #[arg(long, value_name = "N")]
    #[schema(maximum = 9007199254740992u64)]
    pub sessions: Option<u64>,
    /// Seconds a calendar month, in UTC, for which graphs of its sessions run; then they end
    #[arg(long, value_name = "N")]
    #[schema(maximum = 9007199254740992u64)]
    pub session_seconds: Option<u64>,
    /// Viewers at once, of all its sessions
    #[arg(long, value_name = "N")]
    #[schema(maximum = 9007199254740992u64)]
    pub viewers: Option<u64>,
    /// Bytes of its avatars, uploads and renders
    #[arg(long, value_name = "N")]
    #[schema(maximum = 9007199254740992u64)]
    pub stored_bytes: Option<u64>,
    /// Requests a minute of each of its keys
    #[arg(long, value_name = "N")]
    #[schema(minimum = 1, maximum = 9007199254740992u64)]
    pub requests_per_minute: Option<u64>,
    /// Requests that a key may send at once; those of a minute where it is not set
    #[arg(long, value_name = "N")]
    #[schema(minimum = 1, maximum = 9007199254740992u64)]
    pub burst: Option<u64>,
}

impl Limits {
    pub fn check(&self) -> Result<(), String> {
        let all = [
            ("sessions", self.sessions),
            ("session_seconds", self.session_seconds),
            ("viewers", self.viewers),
            ("stored_bytes", self.stored_bytes),
            ("requests_per_minute", self.requests_per_minute),
            ("burst", self.burst),
        ];
        for (name, value) in all {
            let least = u64::from(matches!(name, "requests_per_minute" | "burst"));
            if value.is_some_and(|value| !(least..=MOST).contains(&value)) {
                return Err(format!("{name}: must be in {least}..{MOST}"));
            }
        }
        Ok(())
    }

    fn of(&self, what: Held) -> Option<u64> {
        match what {
            Held::Sessions => self.sessions,
            Held::Viewers => self.viewers,
            Held::Bytes => self.stored_bytes,
        }
    }

    /// Why `sum` is too many.
    pub(super) fn exceeded(&self, what: Held, sum: u64) -> Option<Exceeded> {
        let most = self.of(what).filter(|most| sum > *most)?;
        Some(Exceeded(match what {
            Held::Sessions => format!("the tenant has {most} sessions, the most that its quota allows: end one"),
            Held::Viewers => format!("{most} viewers watch the tenant's sessions, the most that its quota allows"),
            Held::Bytes => format!(
                "the tenant's avatars, uploads and renders would take more than the {most} bytes that its quota allows: \
                 remove some"
            ),
        }))
    }
}

/// A quota does not allow it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Exceeded(pub String);

/// What is counted while it is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    Sessions,
    Viewers,
    /// Of uploads and renders; those of avatars are on the disk longer than a process lives.
    Bytes,
}

/// A part of what a tenant may hold, given back when it is dropped.
#[derive(Debug)]
pub struct Place {
    tenant: Arc<Tenant>,
    what: Held,
    amount: u64,
}

impl Place {
    pub(super) fn new(tenant: Arc<Tenant>, what: Held, amount: u64) -> Self {
        Self { tenant, what, amount }
    }

    /// Takes so much more.
    pub fn grow(&mut self, more: u64) -> Result<(), Exceeded> {
        self.tenant.hold(self.what, more)?;
        self.amount += more;
        Ok(())
    }

    /// What is there now, whatever the quota says: it has been made already.
    pub fn settle(&mut self, amount: u64) {
        self.tenant.settle(self.what, self.amount, amount);
        self.amount = amount;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.settle(0);
    }
}

/// The time after which a request would be taken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Wait(pub Duration);

/// A token bucket: full at first.
#[derive(Debug, Default)]
pub struct Bucket(Option<(f64, Instant)>);

impl Bucket {
    pub fn take(&mut self, limits: &Limits, now: Instant) -> Result<(), Wait> {
        let Some(minute) = limits.requests_per_minute else { return Ok(()) };
        let (rate, most) = (minute as f64 / 60.0, limits.burst.unwrap_or(minute) as f64);
        let (tokens, since) = self.0.unwrap_or((most, now));
        let tokens = (tokens + rate * now.saturating_duration_since(since).as_secs_f64()).min(most);
        if tokens >= 1.0 {
            self.0 = Some((tokens - 1.0, now));
            return Ok(());
        }
        self.0 = Some((tokens, now));
        Err(Wait(Duration::try_from_secs_f64((1.0 - tokens) / rate).unwrap_or(Duration::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn tenant(limits: Limits) -> Arc<Tenant> {
        Arc::new(Tenant::new("a".into(), limits))
    }

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let limits = Limits { requests_per_minute: Some(60), burst: Some(3), ..Limits::default() };
        let (mut bucket, start) = (Bucket::default(), Instant::now());
        assert!((0..3).all(|_| bucket.take(&limits, start).is_ok()));
        assert_eq!(bucket.take(&limits, start), Err(Wait(Duration::from_secs(1))));
        assert_eq!(
            bucket.take(&limits, start + Duration::from_millis(999)).map_err(|w| w.0 < Duration::from_millis(2)),
            Err(true)
        );
        assert!(bucket.take(&limits, start + Duration::from_millis(1001)).is_ok());
        // An hour of rest fills it, and no more.
        let later = start + Duration::from_secs(3600);
        assert_eq!((0..9).filter(|_| bucket.take(&limits, later).is_ok()).count(), 3);
        assert!((0..1000).all(|_| bucket.take(&Limits::default(), later).is_ok()));
    }

    #[test]
    fn what_many_take_at_once_is_exactly_the_quota() {
        let tenant = tenant(Limits { stored_bytes: Some(1000), sessions: Some(7), ..Limits::default() });
        tenant.set_avatar_bytes(100);
        let (sessions, bytes): (Vec<_>, Vec<_>) = thread::scope(|scope| {
            let takers = Vec::from_iter((0..200).map(|_| {
                scope.spawn(|| {
                    let mut bytes = tenant.take(Held::Bytes, 0).unwrap();
                    let grown = (0..10).take_while(|_| bytes.grow(3).is_ok()).count();
                    (tenant.take(Held::Sessions, 1).ok(), (bytes, grown))
                })
            }));
            takers.into_iter().map(|taker| taker.join().unwrap()).unzip()
        });
        assert_eq!(sessions.iter().flatten().count(), 7);
        assert_eq!(bytes.iter().map(|(_, grown)| grown).sum::<usize>(), 300);
        let refused = tenant.take(Held::Sessions, 1).unwrap_err().to_string();
        assert!(refused.contains("7 sessions"), "{refused}");
        drop((sessions, bytes));
        assert_eq!((tenant.held(Held::Sessions), tenant.held(Held::Bytes)), (0, 100));
        assert!(tenant.take(Held::Bytes, 900).is_ok() && tenant.take(Held::Bytes, 901).is_err());
    }

    #[test]
    fn limits_that_cannot_be_are_refused_by_name() {
        let wrong = Limits { burst: Some(0), ..Limits::default() };
        assert!(wrong.check().unwrap_err().starts_with("burst"));
        let wrong = Limits { stored_bytes: Some(u64::MAX), ..Limits::default() };
        assert!(wrong.check().unwrap_err().starts_with("stored_bytes"));
        assert_eq!(Limits { sessions: Some(0), ..Limits::default() }.check(), Ok(()));
    }
}
