//! Which addresses a session may read from and push to.
//!
//! A URL comes from whoever may create sessions; without a guard it would reach what only this machine can: its own
//! services, its neighbours, a cloud's metadata (server-side request forgery). A host is resolved once, every address of
//! it is checked, and where the transport allows the connection goes to the address that was checked.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use url::{Host, Url};

/// Longest URL that is looked at.
const MAX_LENGTH: usize = 2048;
/// Time for a name to be resolved.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a URL is not used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("not a URL: {0}")]
    Malformed(String),
    #[error("`{0}` URLs are not supported here; use {1}")]
    Scheme(String, String),
    #[error("the URL has no host")]
    NoHost,
    #[error("{0} cannot be resolved: {1}")]
    Unresolved(String, String),
    #[error("{0} is not a public address; the server's setting for private addresses decides about it")]
    Private(String),
}

/// A URL that may be used, with the addresses that were checked.
#[derive(Clone)]
pub struct Checked {
    pub url: Url,
    /// As the URL has it, normalised.
    pub host: String,
    pub port: u16,
    pub addresses: Vec<SocketAddr>,
}

impl Checked {
    /// The URL with the first checked address in place of its host.
    pub fn pinned(&self) -> Url {
        let mut url = self.url.clone();
        if let Some(address) = self.addresses.first() {
            // Fails for no scheme that has a host.
            let _ = url.set_host(Some(&match address.ip() {
                IpAddr::V4(ip) => ip.to_string(),
                IpAddr::V6(ip) => format!("[{ip}]"),
            }));
        }
        url
    }
}

impl fmt::Debug for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {:?}", masked(&self.url), self.addresses)
    }
}

/// Reads a URL of one of `schemes`, each with its default port, without looking up its host.
pub fn parse(text: &str, schemes: &[(&str, u16)]) -> Result<(Url, String, u16), Refused> {
    if text.len() > MAX_LENGTH {
        return Err(Refused::Malformed(format!("longer than {MAX_LENGTH} characters")));
    }
    if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(Refused::Malformed("it has spaces or control characters in it".into()));
    }
    let url = Url::parse(text).map_err(|error| Refused::Malformed(error.to_string()))?;
    let Some((_, default)) = schemes.iter().find(|(scheme, _)| *scheme == url.scheme()) else {
        let known: Vec<_> = schemes.iter().map(|(scheme, _)| format!("{scheme}://")).collect();
        return Err(Refused::Scheme(url.scheme().to_owned(), known.join(", ")));
    };
    // Schemes that `url` does not know keep their host as it is; read as HTTP's, 0x7f.1 is an address too.
    let host = Host::parse(url.host_str().filter(|host| !host.is_empty()).ok_or(Refused::NoHost)?)
        .map_err(|error| Refused::Malformed(error.to_string()))?;
    let port = url.port().unwrap_or(*default);
    Ok((url, host.to_string(), port))
}

/// Reads a URL, resolves its host and checks every address of it, unless `private` ones are allowed.
pub async fn check(text: &str, schemes: &[(&str, u16)], private: bool) -> Result<Checked, Refused> {
    let (url, host, port) = parse(text, schemes)?;
    let addresses = resolve(&host, port, private).await?;
    Ok(Checked { url, host, port, addresses })
}

/// The addresses of `host`, all of which must be public unless `private` ones are allowed.
pub async fn resolve(host: &str, port: u16, private: bool) -> Result<Vec<SocketAddr>, Refused> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let unresolved = |error: String| Refused::Unresolved(host.to_owned(), error);
    let addresses: Vec<SocketAddr> = match bare.parse::<IpAddr>() {
        Ok(ip) => vec![SocketAddr::new(ip, port)],
        Err(_) => tokio::time::timeout(PATIENCE, tokio::net::lookup_host((bare, port)))
            .await
            .map_err(|_| unresolved("no answer in time".into()))?
            .map_err(|error| unresolved(error.to_string()))?
            .collect(),
    };
    if addresses.is_empty() {
        return Err(unresolved("it has no address".into()));
    }
    match addresses.iter().find(|address| !private && !is_public(address.ip())) {
        Some(_) => Err(Refused::Private(host.to_owned())),
        None => Ok(addresses),
    }
}

/// Whether an address is one of the public internet: none of those that the IANA special-purpose registries (RFC 6890)
/// keep for other uses, no multicast, no cloud's metadata.
pub fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    !(matches!(a, 0 | 10 | 127 | 224..)
        // Shared by a provider's customers (RFC 6598); one cloud has its metadata at 100.100.100.200.
        || (a == 100 && (64..128).contains(&b))
        || (a == 169 && b == 254)
        || (a == 172 && (16..32).contains(&b))
        || (a == 192 && b == 168)
        || matches!((a, b, c), (192, 0, 0 | 2) | (192, 88, 99) | (198, 51, 100) | (203, 0, 113))
        || (a == 198 && matches!(b, 18 | 19))
        // Another cloud's.
        || ip == Ipv4Addr::new(168, 63, 129, 16))
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    let parts = ip.segments();
    let v4 = |high: u16, low: u16| is_public_v4(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)));
    match parts {
        // Mapped (::ffff:0:0/96) and translated (64:ff9b::/96) addresses are those that they hold.
        [0, 0, 0, 0, 0, 0xFFFF, high, low] | [0x64, 0xFF9B, 0, 0, 0, 0, high, low] => v4(high, low),
        // 6to4.
        [0x2002, high, low, ..] => v4(high, low),
        // Protocol assignments with Teredo, documentation; the rest of what is routed is 2000::/3.
        [0x2001, 0..=0x1FF, ..] | [0x2001, 0xDB8, ..] | [0x3FFF, 0..=0xFFF, ..] => false,
        [first, ..] => first & 0xE000 == 0x2000,
    }
}

/// A URL for people and logs: without user, query and the last part of its path, where keys are.
pub fn masked(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    let path = url.path().rsplit_once('/').map_or("", |(rest, _)| rest);
    format!("{}://{host}{port}{path}/***", url.scheme())
}

/// What `%` and `+` stand for in a part of a URL's query (WHATWG's form encoding).
pub fn decoded(text: &str) -> String {
    let pairs = format!("={text}");
    let value = url::form_urlencoded::parse(pairs.as_bytes()).next();
    value.map_or_else(String::new, |(_, value)| value.into_owned())
}

/// [`masked`] for what may be no URL.
pub fn masked_text(text: &str) -> String {
    Url::parse(text).map_or_else(|_| "(not a URL)".to_owned(), |url| masked(&url))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTMP: &[(&str, u16)] = &[("rtmp", 1935), ("rtmps", 443), ("http", 80)];

    async fn refusal(host: &str) -> Option<Refused> {
        check(&format!("rtmp://{host}/live/x"), RTMP, false).await.err()
    }

    #[tokio::test]
    async fn addresses_that_are_not_public_are_refused_however_they_are_written() {
        for host in [
            "127.0.0.1",
            "127.1",
            "2130706433",
            "0x7f000001",
            "0x7f.0.0.1",
            "0177.0.0.1",
            "017700000001",
            "0",
            "0.0.0.0",
            "localhost",
            "LOCALHOST",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "0xa9fea9fe",
            "100.64.0.1",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "198.18.0.1",
            "224.0.0.1",
            "239.255.255.255",
            "255.255.255.255",
            "[::]",
            "[::1]",
            "[0:0:0:0:0:0:0:1]",
            "[::ffff:127.0.0.1]",
            "[::ffff:a00:1]",
            "[::127.0.0.1]",
            "[64:ff9b::a9fe:a9fe]",
            "[2002:7f00:1::]",
            "[2001:0:1::1]",
            "[fe80::1]",
            "[fc00::1]",
            "[fd00:ec2::254]",
            "[fec0::1]",
            "[ff02::1]",
            "user:secret@127.0.0.1",
            "127.0.0.1:6379",
            "%31%32%37.0.0.1",
            "１２７.0.0.1",
        ] {
            let refused = refusal(host).await;
            assert!(matches!(refused, Some(Refused::Private(_))), "{host}: {refused:?}");
            let http = check(&format!("http://{host}/x.m3u8"), RTMP, false).await.err();
            assert!(matches!(http, Some(Refused::Private(_))), "{host} by HTTP: {http:?}");
        }
    }

    #[tokio::test]
    async fn public_addresses_are_let_through_and_pinned() {
        for (host, address) in [
            ("8.8.8.8", "8.8.8.8:1935"),
            ("172.32.0.1", "172.32.0.1:1935"),
            ("[2606:4700::1111]", "[2606:4700::1111]:1935"),
            ("[::ffff:8.8.8.8]", "[::ffff:8.8.8.8]:1935"),
            ("134744072", "8.8.8.8:1935"),
        ] {
            let checked = check(&format!("rtmp://{host}/live/x?key=1"), RTMP, false).await.unwrap();
            assert_eq!(checked.addresses, [address.parse::<SocketAddr>().unwrap()], "{host}");
            assert!(checked.pinned().as_str().ends_with("/live/x?key=1"));
        }
        let checked = check("rtmp://0x08080808:1936/a", RTMP, false).await.unwrap();
        assert_eq!(checked.pinned().as_str(), "rtmp://8.8.8.8:1936/a");
    }

    #[tokio::test]
    async fn private_ones_are_used_where_they_are_allowed() {
        let checked = check("rtmp://localhost:1936/live/x", RTMP, true).await.unwrap();
        assert!(checked.addresses.iter().all(|address| address.ip().is_loopback() && address.port() == 1936));
    }

    #[test]
    fn other_schemes_and_broken_urls_are_refused() {
        for (text, says) in [
            ("file:///etc/passwd", "`file`"),
            ("gopher://8.8.8.8/", "`gopher`"),
            ("rtmp:///live/x", "no host"),
            ("not a url", "spaces"),
            ("/etc/passwd", "not a URL"),
            ("rtmp://8.8.8.8/\r\nHost: x", "control"),
        ] {
            let refused = parse(text, RTMP).unwrap_err().to_string();
            assert!(refused.contains(says), "{text}: {refused}");
        }
        assert!(parse(&format!("rtmp://h/{}", "x".repeat(5000)), RTMP).is_err());
    }

    #[test]
    fn secrets_are_masked() {
        let url = Url::parse("rtmp://me:pass@live.example:1936/app/inst/SECRET?token=SECRET").unwrap();
        assert_eq!(masked(&url), "rtmp://live.example:1936/app/inst/***");
        assert_eq!(masked(&Url::parse("srt://h.example:9000?passphrase=SECRET").unwrap()), "srt://h.example:9000/***");
    }
}
