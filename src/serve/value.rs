//! Values of the configuration: how each type is read from TOML and from an environment variable, and how it is shown.

use std::{fmt, net::IpAddr, ops::RangeInclusive, path::PathBuf};

use url::Url;

use crate::{storage, tenants::store};

/// A type that a key of the configuration can have. Errors say what it must be, without naming the key.
pub trait Value: Sized {
    /// Secrets are not repeated in errors.
    const SECRET: bool = false;

    fn from_toml(value: &toml::Value) -> Result<Self, String>;

    /// From an environment variable. Lists are separated by commas.
    fn from_text(text: &str) -> Result<Self, String>;

    fn to_toml(&self) -> toml::Value;
}

macro_rules! integers {
    ($($type:ty),*) => {$(
        impl Value for $type {
            fn from_toml(value: &toml::Value) -> Result<Self, String> {
                let must = || format!("must be a whole number in {}..{}", <$type>::MIN, <$type>::MAX);
                value.as_integer().and_then(|n| n.try_into().ok()).ok_or_else(must)
            }

            fn from_text(text: &str) -> Result<Self, String> {
                Self::from_toml(&text.trim().parse().map_or(toml::Value::Boolean(false), toml::Value::Integer))
            }

            fn to_toml(&self) -> toml::Value {
                toml::Value::Integer((*self).into())
            }
        }
    )*};
}

integers!(u16, u32);

impl Value for f64 {
    fn from_toml(value: &toml::Value) -> Result<Self, String> {
        let number = value.as_float().or_else(|| value.as_integer().map(|n| n as f64));
        number.filter(|n| n.is_finite()).ok_or_else(|| "must be a number".into())
    }

    fn from_text(text: &str) -> Result<Self, String> {
        Self::from_toml(&text.trim().parse().map_or(toml::Value::Boolean(false), toml::Value::Float))
    }

    fn to_toml(&self) -> toml::Value {
        toml::Value::Float(*self)
    }
}

impl Value for bool {
    fn from_toml(value: &toml::Value) -> Result<Self, String> {
        value.as_bool().ok_or_else(|| "must be true or false".into())
    }

    fn from_text(text: &str) -> Result<Self, String> {
        text.trim().parse().map_err(|_| "must be true or false".into())
    }

    fn to_toml(&self) -> toml::Value {
        toml::Value::Boolean(*self)
    }
}

/// Types that TOML holds as a string.
pub trait Text: Sized {
    const SECRET: bool = false;
    fn parse(text: &str) -> Result<Self, String>;
    fn show(&self) -> String;
}

macro_rules! texts {
    ($($type:ty),*) => {$(
        impl Value for $type {
            const SECRET: bool = <$type as Text>::SECRET;

            fn from_toml(value: &toml::Value) -> Result<Self, String> {
                Text::parse(value.as_str().ok_or("must be a string in quotes")?)
            }

            fn from_text(text: &str) -> Result<Self, String> {
                Text::parse(text.trim())
            }

            fn to_toml(&self) -> toml::Value {
                toml::Value::String(self.show())
            }
        }
    )*};
}

texts!(String, PathBuf, IpAddr, Url, Secret, StoreUrl, StorageUrl, NatsUrl);

impl Text for String {
    fn parse(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }

    fn show(&self) -> String {
        self.clone()
    }
}

impl Text for PathBuf {
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() { Err("must be a path".into()) } else { Ok(Self::from(text)) }
    }

    fn show(&self) -> String {
        self.display().to_string()
    }
}

impl Text for IpAddr {
    fn parse(text: &str) -> Result<Self, String> {
        let must = "must be an IP address of this machine: 127.0.0.1, ::1, 0.0.0.0 (all of IPv4), :: (all), ...";
        text.parse().map_err(|_| must.into())
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Text for Url {
    fn parse(text: &str) -> Result<Self, String> {
        let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        url.ok_or_else(|| "must be a URL that begins with http:// or https://".into())
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// A bearer key. It is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl Text for Secret {
    const SECRET: bool = true;

    fn parse(text: &str) -> Result<Self, String> {
        let fits = (16..=256).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        let must = "must be 16 to 256 visible ASCII characters without spaces; `openssl rand -hex 24` makes one";
        if fits { Ok(Self(text.to_owned())) } else { Err(must.into()) }
    }

    fn show(&self) -> String {
        "(hidden)".into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// Where a store of tenants is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreUrl(pub String);

impl Text for StoreUrl {
    fn parse(text: &str) -> Result<Self, String> {
        store::path(text).map(|_| Self(text.to_owned())).map_err(str::to_owned)
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

/// Where a storage is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageUrl(pub String);

impl Text for StorageUrl {
    fn parse(text: &str) -> Result<Self, String> {
        storage::check_url(text).map(|()| Self(text.to_owned())).map_err(str::to_owned)
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

/// Where a NATS server is. A password in it is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct NatsUrl(pub String);

impl Text for NatsUrl {
    const SECRET: bool = true;

    fn parse(text: &str) -> Result<Self, String> {
        let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "nats" | "tls") && url.has_host());
        let must = "must be a URL of a NATS server, nats://HOST:4222, or tls://HOST:4222 for TLS";
        url.map(|_| Self(text.to_owned())).ok_or_else(|| must.into())
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

impl fmt::Debug for NatsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NatsUrl(…)")
    }
}

impl<T: Value> Value for Vec<T> {
    const SECRET: bool = T::SECRET;

    fn from_toml(value: &toml::Value) -> Result<Self, String> {
        let items = value.as_array().ok_or("must be a list in square brackets")?;
        items.iter().map(|item| T::from_toml(item).map_err(|must| format!("each of the list {must}"))).collect()
    }

    fn from_text(text: &str) -> Result<Self, String> {
        let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
        items.map(|item| T::from_text(item).map_err(|must| format!("each of the list {must}"))).collect()
    }

    fn to_toml(&self) -> toml::Value {
        toml::Value::Array(self.iter().map(Value::to_toml).collect())
    }
}

/// An empty string is none.
impl<T: Value> Value for Option<T> {
    const SECRET: bool = T::SECRET;

    fn from_toml(value: &toml::Value) -> Result<Self, String> {
        if value.as_str() == Some("") { Ok(None) } else { T::from_toml(value).map(Some) }
    }

    fn from_text(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() { Ok(None) } else { T::from_text(text).map(Some) }
    }

    fn to_toml(&self) -> toml::Value {
        self.as_ref().map_or_else(|| toml::Value::String(String::new()), Value::to_toml)
    }
}

/// Any value of the type.
pub fn any<T>(_: &T) -> Result<(), String> {
    Ok(())
}

/// A number within bounds.
pub fn within<T: PartialOrd + fmt::Display>(range: RangeInclusive<T>) -> impl Fn(&T) -> Result<(), String> {
    move |value| {
        if range.contains(value) { Ok(()) } else { Err(format!("must be in {}..{}", range.start(), range.end())) }
    }
}
