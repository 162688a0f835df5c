//! A tenant: its limits, what it holds, what is counted for it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

use parking_lot::{Mutex, RwLock};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    Month, Totals,
    quota::{Exceeded, Held, Limits, Place},
    usage::Meter,
};

/// What the API says about a tenant.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Tenant)]
pub struct TenantInfo {
    pub name: String,
    pub limits: Limits,
    /// Held now.
    pub sessions: u64,
    pub viewers: u64,
    pub stored_bytes: u64,
    /// Used of this month.
    pub session_seconds: f64,
}

/// See the module.
#[derive(Debug)]
pub struct Tenant {
    pub name: String,
    limits: RwLock<Limits>,
    held: [AtomicU64; 3],
    avatar_bytes: AtomicU64,
    /// Of renders that belong to no machine.
    render_bytes: AtomicU64,
    meter: Mutex<Meter>,
    /// Refused for a quota, and for the rate.
    over: AtomicU64,
    late: AtomicU64,
    removed: AtomicBool,
}

impl Tenant {
    pub(super) fn new(name: String, limits: Limits) -> Self {
        Self {
            name,
            limits: RwLock::new(limits),
            held: Default::default(),
            avatar_bytes: AtomicU64::new(0),
            render_bytes: AtomicU64::new(0),
            meter: Mutex::default(),
            over: AtomicU64::new(0),
            late: AtomicU64::new(0),
            removed: AtomicBool::new(false),
        }
    }

    pub fn limits(&self) -> Limits {
        *self.limits.read()
    }

    pub(super) fn set_limits(&self, limits: Limits) {
        *self.limits.write() = limits;
    }

    /// Takes a place for as long as what is returned lives. However many take at once, no more than the quota are given.
    pub fn take(self: &Arc<Self>, what: Held, amount: u64) -> Result<Place, Exceeded> {
        self.hold(what, amount)?;
        Ok(Place::new(self.clone(), what, amount))
    }

    pub(super) fn hold(&self, what: Held, amount: u64) -> Result<(), Exceeded> {
        let limits = self.limits();
        let beside = self.beside(what);
        let more = |held: u64| {
            let sum = held.saturating_add(amount);
            limits.exceeded(what, sum.saturating_add(beside)).is_none().then_some(sum)
        };
        let held = self.held[what as usize].fetch_update(Relaxed, Relaxed, more);
        held.map(drop).map_err(|_| {
            self.over.fetch_add(1, Relaxed);
            limits.exceeded(what, u64::MAX).unwrap_or_else(|| Exceeded("the quota has just changed: try again".into()))
        })
    }

    pub(super) fn settle(&self, what: Held, before: u64, now: u64) {
        let held = &self.held[what as usize];
        if now >= before {
            held.fetch_add(now - before, Relaxed)
        } else {
            held.fetch_sub(before - now, Relaxed)
        };
    }

    /// Held now; bytes with those of avatars.
    pub fn held(&self, what: Held) -> u64 {
        let beside = self.beside(what);
        self.held[what as usize].load(Relaxed).saturating_add(beside)
    }

    /// Whether so many bytes more may be stored; they are counted when they are.
    pub fn check_bytes(&self, more: u64) -> Result<(), Exceeded> {
        let exceeded = self.limits().exceeded(Held::Bytes, self.held(Held::Bytes).saturating_add(more));
        exceeded.map_or(Ok(()), |exceeded| {
            self.over.fetch_add(1, Relaxed);
            Err(exceeded)
        })
    }

    /// What its avatars take on the disk.
    pub fn set_avatar_bytes(&self, bytes: u64) {
        self.avatar_bytes.store(bytes, Relaxed);
    }

    /// What its renders take in the storage of a cluster.
    pub fn set_render_bytes(&self, bytes: u64) {
        self.render_bytes.store(bytes, Relaxed);
    }

    /// What is held and no place is for.
    fn beside(&self, what: Held) -> u64 {
        match what {
            Held::Bytes => self.avatar_bytes.load(Relaxed).saturating_add(self.render_bytes.load(Relaxed)),
            Held::Sessions | Held::Viewers => 0,
        }
    }

    /// Counts what has been used since it was last counted.
    pub fn count(&self, more: Totals) {
        if more != Totals::default() {
            self.meter.lock().add(Month::now(), more);
        }
    }

    /// Refuses where the seconds of the month are used up, or the tenant is gone.
    pub fn check_month(&self) -> Result<(), Exceeded> {
        if self.removed.load(Relaxed) {
            return Err(Exceeded("the tenant has been removed".into()));
        }
        let Some(most) = self.limits().session_seconds else { return Ok(()) };
        if self.meter.lock().session_us(Month::now()) < most.saturating_mul(1_000_000) {
            return Ok(());
        }
        self.over.fetch_add(1, Relaxed);
        Err(Exceeded(format!("the {most} session seconds of this month that the tenant's quota allows are used up")))
    }

    /// Whether its sessions must end.
    pub fn is_over(&self) -> bool {
        let used = |most: u64| self.meter.lock().session_us(Month::now()) >= most.saturating_mul(1_000_000);
        self.removed.load(Relaxed) || self.limits().session_seconds.is_some_and(used)
    }

    pub(super) fn set_removed(&self, removed: bool) {
        self.removed.store(removed, Relaxed);
    }

    pub fn is_removed(&self) -> bool {
        self.removed.load(Relaxed)
    }

    pub(super) fn meter(&self) -> &Mutex<Meter> {
        &self.meter
    }

    pub(super) fn count_late(&self) {
        self.late.fetch_add(1, Relaxed);
    }

    /// Refused since the process began: for a quota, and for the rate.
    pub fn refused(&self) -> (u64, u64) {
        (self.over.load(Relaxed), self.late.load(Relaxed))
    }

    /// Counted since the process began.
    pub fn totals(&self) -> Totals {
        self.meter.lock().totals()
    }

    pub fn info(&self) -> TenantInfo {
        TenantInfo {
            name: self.name.clone(),
            limits: self.limits(),
            sessions: self.held(Held::Sessions),
            viewers: self.held(Held::Viewers),
            stored_bytes: self.held(Held::Bytes),
            session_seconds: self.meter.lock().session_us(Month::now()) as f64 / 1e6,
        }
    }
}
