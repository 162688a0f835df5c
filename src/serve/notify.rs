//! Tells systemd how the service does: the protocol of sd_notify(3), a datagram to the socket in `NOTIFY_SOCKET`.

use std::{
    env,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
};

/// Sends `READY=1`, `STOPPING=1` or `STATUS=...`. Does nothing where nobody listens.
pub fn notify(state: &str) {
    let Some(name) = env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = send(name.as_bytes(), state) {
        tracing::warn!(%error, "NOTIFY_SOCKET does not take {state}");
    }
}

fn send(name: &[u8], state: &str) -> std::io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    // An `@` in front is Linux' abstract namespace.
    let address = match name {
        [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest)?,
        path => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(path))?,
    };
    socket.send_to_addr(state.as_bytes(), &address)?;
    Ok(())
}
