//! `lipstream keys`: tenants and their keys in the store, whether a server runs or not.

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Subcommand};

use super::{Failure, Limits, NewKey, Scope, Store, scope};
use crate::{
    error::{Failure as Failed, Result},
    serve::Config,
};

/// What the command line says.
#[derive(Args)]
pub struct Keys {
    /// Configuration of the server, which names the store
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The store, in place of auth.store: sqlite:///PATH
    #[arg(long, global = true, value_name = "URL")]
    store: Option<String>,
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Make a key of a tenant and print it; it is not shown again
    Add {
        tenant: String,
        /// What it may do
        #[arg(long, value_enum, value_delimiter = ',', default_values_t = Scope::ALL, value_name = "SCOPES")]
        scopes: Vec<Scope>,
        /// What it is for
        #[arg(long, default_value = "")]
        note: String,
    },
    /// List the keys, without the keys themselves
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Revoke a key; a running server refuses it within a second
    Revoke {
        /// As `list` shows it
        id: String,
    },
    /// Tenants and what they may hold
    #[command(subcommand)]
    Tenants(Tenants),
}

#[derive(Subcommand)]
enum Tenants {
    /// List the tenants
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Make a tenant, or replace the limits of one; a limit that is not given is none
    Set {
        name: String,
        #[command(flatten)]
        limits: Limits,
    },
    /// Remove a tenant: its keys are revoked, its sessions end, its usage stays
    Remove { name: String },
}

impl Keys {
    pub fn run(self) -> Result<ExitCode> {
        let url = match self.store {
            Some(url) => url,
            None => {
                let environment =
                    std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
                let store = Config::load(self.config.as_deref(), environment)?.auth.store;
                let cure = "there is no store of tenants: give --store sqlite:///PATH, or --config with auth.store";
                store.map(|store| store.0).ok_or_else(|| Failed::usage(cure))?
            }
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| Failed::run(format!("threads cannot be started: {e}")))?;
        runtime.block_on(run(&url, self.action)).map_err(|failure| match failure {
            Failure::Store(_) | Failure::Fault => Failed::run(failure.to_string()),
            _ => Failed::usage(failure.to_string()),
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

async fn run(url: &str, action: Action) -> Result<(), Failure> {
    let store = Store::open(url).await?;
    match action {
        Action::Add { tenant, scopes, note } => {
            let (key, info) = store.add_key(&NewKey { tenant, scopes, note }).await?;
            println!("{key}");
            eprintln!("{} of {}: {}; it is not shown again", info.id, info.tenant, scope::list(&info.scopes));
        }
        Action::List { json } => {
            let keys: Vec<_> = store.keys().await?.into_iter().map(|kept| kept.info).collect();
            if json {
                println!("{}", serde_json::to_string_pretty(&keys).expect("keys are plain values"));
            } else {
                for key in keys {
                    let state = if key.revoked.is_some() { "revoked" } else { "in force" };
                    println!("{}  {:<16} {:<28} {state}  {}", key.id, key.tenant, scope::list(&key.scopes), key.note);
                }
            }
        }
        Action::Revoke { id } => store.revoke(&id).await?,
        Action::Tenants(Tenants::Set { name, limits }) => store.put_tenant(&name, &limits).await?,
        Action::Tenants(Tenants::Remove { name }) => store.remove_tenant(&name).await?,
        Action::Tenants(Tenants::List { json }) => {
            let tenants = store.tenants().await?;
            for (name, limits) in &tenants {
                let limits = serde_json::to_value(limits).expect("limits are plain values");
                if json {
                    println!("{}", serde_json::json!({ "name": name, "limits": limits }));
                } else {
                    let set = limits.as_object().into_iter().flatten().filter(|(_, limit)| !limit.is_null());
                    let set: Vec<_> = set.map(|(name, limit)| format!("{name} {limit}")).collect();
                    println!("{name:<16} {}", if set.is_empty() { "no limits".to_owned() } else { set.join(", ") });
                }
            }
        }
    }
    Ok(())
}
