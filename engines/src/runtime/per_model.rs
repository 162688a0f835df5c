use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, Weak},
};

use parking_lot::Mutex;

use super::Model;

/// What the users of a loaded model share beside it, of each model one for as long as somebody has it.
pub(crate) struct PerModel<T>(LazyLock<Mutex<HashMap<usize, Weak<T>>>>);

impl<T> PerModel<T> {
    pub const fn new() -> Self {
        Self(LazyLock::new(Mutex::default))
    }

    /// That of a model, by its address; where there is none `make` makes one, which must keep the model: no other one is at its
    /// address meanwhile.
    pub fn of(&self, model: &Arc<Model>, make: impl FnOnce() -> T) -> Arc<T> {
        let mut all = self.0.lock();
        let address = Arc::as_ptr(model) as usize;
        if let Some(known) = all.get(&address).and_then(Weak::upgrade) {
            return known;
        }
        all.retain(|_, one| one.strong_count() > 0);
        let made = Arc::new(make());
        all.insert(address, Arc::downgrade(&made));
        made
    }
}
