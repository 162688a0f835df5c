//! `lipstream serve`: the service, from its configuration to its end.

mod banner;
mod config;
mod notify;
mod renders;
mod section;
mod value;

use std::{
    io::ErrorKind,
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::sync::CancellationToken;

pub use self::config::Config;
use crate::{
    avatar,
    cluster::{Addresses, Cluster, Member},
    error::{Failure, Result},
    http, jobs, memory,
    metrics::Metrics,
    rtmp,
    session::{self, Manager, OnPublish, Refusal, SessionSpec, Video},
    tenants::Tenants,
    termination, webrtc,
};

/// How often a signal is looked for.
const POLL: Duration = Duration::from_millis(50);
/// Pause before a session for which there was no room is tried again; it doubles each time.
const RETRY: Duration = Duration::from_secs(2);
const LONGEST_RETRY: Duration = Duration::from_secs(60);
/// Folder for uploads, in that of the avatars; no avatar's name starts with a dot.
const UPLOADS: &str = ".uploads";
/// Time that sessions have to end, and then tasks that still run.
const GRACE: Duration = Duration::from_secs(3);

/// Serves until SIGINT or SIGTERM.
/// `cluster` is where the command line says that the cluster's NATS servers are.
pub fn run(file: Option<&Path>, cluster: Option<&str>) -> Result<()> {
    let environment = std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
    let mut config = Config::load(file, environment)?;
    cluster.map_or(Ok(()), |line| config.set_cluster(line))?;
    memory::share_arenas();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("http")
        .build()
        .map_err(|e| Failure::run(format!("threads cannot be started: {e}")))?;
    let served = runtime.block_on(serve(config));
    runtime.shutdown_timeout(Duration::from_secs(1));
    served
}

async fn serve(config: Config) -> Result<()> {
    let keys: Vec<String> = config.keys()?.into_iter().map(|key| key.0).collect();
    // Ports first: a port that is taken should not cost the time that the sessions take to start.
    let http = listen(config.server.bind, config.server.port, "server.port", "LIPSTREAM_SERVER_PORT").await?;
    let rtmp = match config.rtmp.enabled {
        true => Some(listen(config.rtmp.bind, config.rtmp.port, "rtmp.port", "LIPSTREAM_RTMP_PORT").await?),
        false => None,
    };
    let cluster = match config.cluster()? {
        Some(settings) => Some(Cluster::connect(settings).await?),
        None => None,
    };
    let addresses = banner::Addresses::new(&config, local(&http)?, rtmp.as_ref().map(local).transpose()?);
    let (folder, consent) = (config.avatars_folder()?, config.avatars.require_consent);
    let uploads = folder.join(UPLOADS);
    let avatars = blocking(move || match consent {
        true => avatar::Store::open_with_consent(&folder),
        false => avatar::Store::open(&folder),
    })
    .await?;
    let uploads = http::Uploads::new(uploads, avatars.clone(), config.avatars.max_waiting as usize);
    let encoder = config.encoder()?;
    tracing::info!("H.264 is encoded by {}", encoder.name());
    let manager = Manager::new(session::Settings { encoder, ..config.manager() }, avatars.clone());
    let tenants = match &config.auth.store {
        Some(store) => Some(open_tenants(&store.0, avatars.clone()).await?),
        None => None,
    };
    let renders = renders::open(&config, cluster.as_ref(), avatars, tenants.clone()).await?;
    if let Some(tenants) = &tenants {
        manager.set_tenants(tenants.clone());
    }
    let member = match &cluster {
        Some(cluster) => {
            let joined = addresses_for(&config, local(&http)?, rtmp.as_ref().map(local).transpose()?)?;
            let speech = i64::from(config.cluster.speech_mb) * 1_000_000;
            Some(Member::join(cluster.clone(), manager.clone(), joined, speech).await?)
        }
        None => None,
    };
    if let OnPublish::Begin { graph, .. } = &manager.settings().on_publish {
        let wrong = |cause: String| Failure::usage(format!("sessions.on_publish = \"{graph}\": {cause}"));
        let (_, service) = manager.graph(graph).map_err(|refusal| wrong(refusal.to_string()))?;
        if service.video != Video::Publish {
            return Err(wrong("a session of this graph takes no publisher".into()));
        }
    }
    for spec in config.specs() {
        create(&manager, spec).await?;
    }
    let metrics = Arc::new(Metrics::new());
    let webrtc = webrtc::Server::bind(config.webrtc(), manager.clone())?;
    metrics.watch_webrtc(webrtc.clone());
    if let Some(member) = &member {
        metrics.watch_cluster(member.clone());
    }
    let rtmp_settings = rtmp::Settings { app: config.rtmp.app.clone(), ..rtmp::Settings::default() };
    let start_rtmp = |listener| rtmp::Server::on(listener, rtmp_settings, manager.clone()).map(Arc::new);
    let rtmp = rtmp.map(start_rtmp).transpose()?;
    if let Some(server) = &rtmp {
        metrics.watch_rtmp(server.clone());
    }
    let app = http::App {
        manager: manager.clone(),
        metrics,
        uploads,
        renders: renders.clone(),
        grants: cluster.as_ref().map_or_else(Arc::default, |cluster| Arc::new(http::Grants::of_node(cluster.node()))),
        tenants: tenants.clone(),
        cluster: member.clone(),
        drain: Duration::from_secs(config.cluster.drain_seconds.into()),
        sockets: Arc::new(Semaphore::new(config.limits.connections as usize)),
        settings: settings(&config, keys, &addresses),
    };
    let router = http::router(Arc::new(app), webrtc.router());
    let end = CancellationToken::new();
    let bounds = http::Bounds {
        connections: config.limits.connections as usize,
        header: Duration::from_secs(config.limits.header_seconds.into()),
    };
    let server = tokio::spawn(http::serve(http, router, bounds, end.clone()));
    addresses.print(&config);
    notify::notify("READY=1");
    let drained = || member.as_ref().is_some_and(|member| member.is_drained());
    while !termination::requested() && !drained() {
        tokio::time::sleep(POLL).await;
    }
    notify::notify("STOPPING=1");
    if let Some(member) = &member {
        // A second signal ends it at once.
        member.drain(Duration::from_secs(config.cluster.drain_seconds.into()));
        while !member.is_drained() {
            tokio::time::sleep(POLL).await;
        }
        member.leave().await;
    }
    end.cancel();
    let rtmp_ends = async {
        if let Some(rtmp) = rtmp {
            rtmp.stop().await;
        }
    };
    tokio::join!(rtmp_ends, webrtc.close());
    close(manager, renders).await;
    if let Some(tenants) = tenants {
        tenants.close().await;
    }
    // A task that panicked has been logged.
    let _ = server.await;
    Ok(())
}

/// Where others reach this node.
fn addresses_for(config: &Config, http: SocketAddr, rtmp: Option<SocketAddr>) -> Result<Addresses> {
    let own = &config.cluster;
    let host = match &own.advertise {
        Some(url) => url.host_str().unwrap_or_default().to_owned(),
        None if http.ip().is_unspecified() => {
            return Err(Failure::usage(format!(
                "server.bind = \"{}\": other nodes cannot tell which of the machine's addresses to use; set cluster.advertise = \
                 \"http://HOST:{}\"",
                http.ip(),
                http.port()
            )));
        }
        None => match http.ip() {
            IpAddr::V6(ip) => format!("[{ip}]"),
            IpAddr::V4(ip) => ip.to_string(),
        },
    };
    let url = own.advertise.as_ref().map(|url| url.as_str().trim_end_matches('/').to_owned());
    Ok(Addresses {
        url: url.unwrap_or_else(|| format!("http://{host}:{}", http.port())),
        public_url: config.server.public_url.as_ref().map(|url| url.as_str().trim_end_matches('/').to_owned()),
        rtmp: rtmp.map(|rtmp| own.advertise_rtmp.clone().unwrap_or_else(|| format!("{host}:{}", rtmp.port()))),
    })
}

/// Opens the store of tenants and looks after it from now on.
async fn open_tenants(store: &str, avatars: Arc<avatar::Store>) -> Result<Arc<Tenants>> {
    let tenants = Tenants::open(store, avatars).await.map_err(|failure| Failure::run(failure.to_string()))?;
    tokio::spawn(Tenants::look_after(Arc::downgrade(&tenants)));
    Ok(tenants)
}

/// Creates a session of the configuration. One for which there is no room now is tried again: the machine may be busy
/// with its own start. One that is wrong ends the service.
async fn create(manager: &Arc<Manager>, spec: SessionSpec) -> Result<()> {
    let Some(refusal) = try_create(manager, spec.clone()).await? else { return Ok(()) };
    let message = format!("[[session]] `{}`: {refusal}", spec.id);
    if matches!(refusal, Refusal::Conflict(_)) && manager.peers().is_some() {
        tracing::info!("{message}: it stays where it is");
        return Ok(());
    }
    if !matches!(refusal, Refusal::Full(_) | Refusal::Failed(_)) {
        return Err(Failure::usage(message));
    }
    tracing::warn!("{message}; it is tried again");
    let manager = manager.clone();
    tokio::spawn(async move {
        let mut pause = RETRY;
        loop {
            tokio::time::sleep(pause).await;
            match try_create(&manager, spec.clone()).await {
                Ok(Some(Refusal::Full(_) | Refusal::Failed(_))) => pause = (pause * 2).min(LONGEST_RETRY),
                // It is there, somebody has made another of its name, or the service ends.
                _ => return,
            }
        }
    });
    Ok(())
}

async fn try_create(manager: &Arc<Manager>, spec: SessionSpec) -> Result<Option<Refusal>> {
    let manager = manager.clone();
    blocking(move || Ok(manager.create(spec).err())).await
}

/// Ends all sessions, in so far as they end in time.
async fn close(manager: Arc<Manager>, renders: Arc<jobs::Renders>) {
    let closing = tokio::task::spawn_blocking(move || {
        manager.close();
        renders.close();
    });
    if tokio::time::timeout(GRACE, closing).await.is_err() {
        tracing::warn!("some sessions did not end within {} s", GRACE.as_secs());
    }
}

fn settings(config: &Config, keys: Vec<String>, addresses: &banner::Addresses) -> http::Settings {
    let limits = &config.limits;
    let megabytes = |n: u32| u64::from(n) * 1_000_000;
    http::Settings {
        bind: config.server.bind,
        keys,
        public_url: config.server.public_url.clone(),
        cors_origins: config.server.cors_origins.clone(),
        limits: http::Limits {
            json: limits.json_kb as usize * 1000,
            speak: megabytes(limits.speak_mb),
            upload: megabytes(config.avatars.max_upload_mb),
            render: megabytes(limits.render_mb),
            body_idle: Duration::from_secs(limits.body_idle_seconds.into()),
        },
        rtmp_url: addresses.rtmp(),
        ice_servers: config.ice_servers(),
    }
}

async fn listen(bind: IpAddr, port: u16, key: &str, variable: &str) -> Result<TcpListener> {
    let address = SocketAddr::new(bind, port);
    TcpListener::bind(address).await.map_err(|error| {
        let cure = match error.kind() {
            ErrorKind::AddrInUse => format!(
                "another program listens there (`ss -ltnp 'sport = :{port}'` names it); end it, or set {key} or \
                 {variable} to another port"
            ),
            ErrorKind::PermissionDenied => format!("ports below 1024 are for root; set {key} to a higher one"),
            ErrorKind::AddrNotAvailable => "this machine does not have the address".into(),
            _ => error.to_string(),
        };
        Failure::run(format!("cannot listen on {address}: {cure}"))
    })
}

fn local(listener: &TcpListener) -> Result<SocketAddr> {
    listener.local_addr().map_err(|e| Failure::run(format!("the system does not tell the port: {e}")))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err(Failure::run("the service panicked while starting")))
}
