//! Whose avatars are: each belongs to the tenant that its manifest names, or to the operator.

use std::{path::PathBuf, sync::Arc};

use super::{
    name,
    store::{Avatar, DEMO, Manifest, Store, Summary, size},
};
use crate::tenants::Caller;

impl Store {
    /// Those that `caller` sees: its own and the demo.
    pub fn list_for(&self, caller: &Caller) -> Vec<Summary> {
        let listed = [DEMO.to_owned()].into_iter().chain(self.names());
        listed.filter_map(|name| self.get_for(&name, caller)).map(|avatar| avatar.summary()).collect()
    }

    /// Names of those, as the end of a message.
    pub fn names_for(&self, caller: &Caller) -> String {
        self.list_for(caller).into_iter().map(|avatar| avatar.name).collect::<Vec<_>>().join(", ")
    }

    /// The avatar, where `caller` sees it.
    pub fn get_for(&self, name: &str, caller: &Caller) -> Option<Arc<Avatar>> {
        self.get(name).filter(|avatar| avatar.name == DEMO || caller.sees(avatar.owner.as_deref()))
    }

    /// Whether the name is one that `caller` cannot take, since it is another's or the program's. Reads the disk.
    pub fn is_taken(&self, name: &str, caller: &Caller) -> bool {
        let folder = self.folder.join(name);
        let there = name::check("avatar", name).is_ok() && folder.symlink_metadata().is_ok();
        // A broken one is nobody's but the operator's.
        there && !caller.sees(Manifest::read(&folder).ok().and_then(|manifest| manifest.tenant).as_deref())
    }

    /// Bytes that the avatars of a tenant take. Reads the disk.
    pub fn bytes_of(&self, tenant: &str) -> u64 {
        let own = |folder: &PathBuf| Manifest::read(folder).is_ok_and(|m| m.tenant.as_deref() == Some(tenant));
        self.names().iter().map(|name| self.folder.join(name)).filter(own).map(|folder| size(&folder, 1)).sum()
    }
}
