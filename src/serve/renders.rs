//! The renders of the server: its own, or those of the cluster that it is a node of.

use std::{sync::Arc, time::Duration};

use super::{Config, blocking};
use crate::{
    avatar,
    cluster::Cluster,
    error::{Failure, Result},
    jobs::{self, Renders},
    storage::Storage,
    tenants::Tenants,
};

/// Opens them, with the storage that the configuration names.
pub async fn open(
    config: &Config,
    cluster: Option<&Arc<Cluster>>,
    avatars: Arc<avatar::Store>,
    tenants: Option<Arc<Tenants>>,
) -> Result<Arc<Renders>> {
    let (folder, mut settings) = (config.renders_folder()?, config.renders()?);
    let storage = match config.storage() {
        Some(named) => Some(Storage::open(&named).await.map_err(|failure| Failure::run(failure.to_string()))?),
        None => None,
    };
    let renders = match (cluster, storage) {
        (Some(cluster), Some(storage)) => {
            let cluster = jobs::Cluster {
                link: cluster.clone(),
                takeover: Duration::from_secs(config.renders.takeover_seconds.into()),
                storage,
                avatars,
                tenants,
                scratch: folder,
            };
            Renders::Shared(jobs::Shared::open(cluster, settings).await?)
        }
        (cluster, storage) => {
            if cluster.is_some() {
                tracing::warn!(
                    "renders stay on the node that they are sent to: storage.url names no place that all nodes reach"
                );
            }
            settings.storage = storage;
            Renders::Here(blocking(move || jobs::Store::open(&folder, settings, avatars)).await?)
        }
    };
    Ok(Arc::new(renders))
}
