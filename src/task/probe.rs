//! What tells by itself whether a host is still reached: a ping, the quorum, an HTTPS server.

use std::fmt;
use std::net::{TcpStream, ToSocketAddrs};
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::sys::exec::{Cmd, Status};
use crate::sys::host::Host;
use crate::sys::pmxcfs;

const LIMIT: Duration = Duration::from_secs(3);
const HTTPS_PORT: u16 = 443;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Probe {
    /// This host answers a ping.
    Ping(String),
    /// /etc/pve is mounted and takes writes.
    Quorum,
    /// Something takes a connection there.
    Https { host: String, port: u16 },
}

impl FromStr for Probe {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = "a probe is ping:HOST, quorum or https://HOST[:PORT]";
        // An argument of ping, too.
        let host = |word: &str| {
            let is_host = |c: char| c.is_ascii_alphanumeric() || "-._:%".contains(c);
            let bare = word.trim_start_matches('[').trim_end_matches(']');
            let is_good = !bare.is_empty() && !bare.starts_with('-') && bare.chars().all(is_host);
            is_good.then(|| bare.to_owned()).ok_or_else(|| format!("'{text}': names no host; {known}"))
        };
        if text == "quorum" {
            return Ok(Self::Quorum);
        }
        if let Some(word) = text.strip_prefix("ping:") {
            return host(word).map(Self::Ping);
        }
        let Some(rest) = text.strip_prefix("https://") else { return Err(format!("'{text}': {known}")) };
        let server = rest.split('/').next().unwrap_or_default();
        match server.rsplit_once(':') {
            Some((name, port)) if !port.ends_with(']') => {
                let port = port.parse().map_err(|_| format!("'{text}': '{port}' is no port"))?;
                Ok(Self::Https { host: host(name)?, port })
            }
            _ => Ok(Self::Https { host: host(server)?, port: HTTPS_PORT }),
        }
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ping(host) => write!(f, "ping:{host}"),
            Self::Quorum => f.write_str("quorum"),
            Self::Https { host, port } if host.contains(':') => write!(f, "https://[{host}]:{port}"),
            Self::Https { host, port } => write!(f, "https://{host}:{port}"),
        }
    }
}

impl TryFrom<String> for Probe {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Probe> for String {
    fn from(probe: Probe) -> Self {
        probe.to_string()
    }
}

impl Probe {
    /// Within a few seconds.
    pub fn is_good(&self, host: &Host) -> bool {
        match self {
            Self::Ping(target) => {
                let cmd = Cmd::new(["ping", "-c", "1", "-W", "2", target], LIMIT);
                matches!(host.exec.run(&cmd), Ok(Some(output)) if output.status == Status::Exit(0))
            }
            Self::Quorum => pmxcfs::state(host) == pmxcfs::State::Live { quorate: true },
            Self::Https { host, port } => {
                let addresses = (host.as_str(), *port).to_socket_addrs();
                let mut addresses = addresses.into_iter().flatten();
                addresses.any(|address| TcpStream::connect_timeout(&address, LIMIT).is_ok())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_probe_is_read_and_written_back() {
        for (text, shown) in [
            ("quorum", "quorum"),
            ("ping:10.0.0.1", "ping:10.0.0.1"),
            ("ping:fd00::1", "ping:fd00::1"),
            ("https://nas.lan/health", "https://nas.lan:443"),
            ("https://nas:8006", "https://nas:8006"),
            ("https://[fd00::1]:8006/", "https://[fd00::1]:8006"),
        ] {
            assert_eq!(text.parse::<Probe>().unwrap().to_string(), shown);
        }
    }

    #[test]
    fn what_is_no_probe_is_told() {
        for text in ["", "ping:", "ping:-f", "ping:a b", "http://x", "https://", "https://x:y", "Quorum"] {
            assert!(text.parse::<Probe>().is_err(), "{text}");
        }
    }
}
