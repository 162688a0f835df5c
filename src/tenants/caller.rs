//! Who sends a request.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{Key, Tenant};

/// Who sends a request, or has opened what sends now.
#[derive(Clone, Debug)]
pub enum Caller {
    /// Whoever has a key of the configuration; everyone where there are no keys.
    Operator,
    /// A tenant, by one of its keys, or by the token of a session that was begun with it.
    Tenant(Arc<Key>),
}

impl Caller {
    pub fn tenant(&self) -> Option<&Arc<Tenant>> {
        match self {
            Self::Operator => None,
            Self::Tenant(key) => Some(&key.tenant),
        }
    }

    /// Whether what belongs to `owner`, nobody being the operator, is there for this one.
    pub fn sees(&self, owner: Option<&str>) -> bool {
        self.tenant().is_none_or(|tenant| Some(tenant.name.as_str()) == owner)
    }

    /// The same by the owner itself.
    pub fn sees_of(&self, owner: Option<&Arc<Tenant>>) -> bool {
        self.sees(owner.map(|tenant| tenant.name.as_str()))
    }

    /// Cancelled when its key is revoked; never for the operator.
    pub fn until(&self) -> CancellationToken {
        match self {
            Self::Operator => CancellationToken::new(),
            Self::Tenant(key) => key.revoked().clone(),
        }
    }

    /// Whether its key is in force.
    pub fn is_live(&self) -> bool {
        !matches!(self, Self::Tenant(key) if key.is_revoked())
    }
}
