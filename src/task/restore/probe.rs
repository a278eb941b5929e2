//! Probes that tell whether a host is still reached: a ping, the quorum, an HTTPS server. Reached, not known: a
//! Proxmox node shows a certificate that it signed itself, and a probe tells a server nothing but a path.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::facts::PmxcfsState;
use crate::sys::host::Host;
use crate::sys::net::http::{Client, HttpRequest, Site};
use crate::sys::pmxcfs;
use crate::sys::process::exec::{Cmd, ToolStatus};
use crate::sys::process::threads;

/// The time limit of one probe, including the look-up of a name.
const LIMIT: Duration = Duration::from_secs(3);
const HTTPS_PORT: u16 = 443;
/// The lowest status of a server that says that it is broken. Below it the server has answered: a login page, a
/// redirect, or a question for a password.
const BROKEN_STATUS: u16 = 500;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Probe {
    /// This host answers a ping.
    Ping(String),
    /// /etc/pve is mounted and takes writes.
    Quorum,
    /// A server answers there, whatever its certificate; `path` as it was given, with its question mark if any.
    Https { host: String, port: u16, path: String },
}

impl FromStr for Probe {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = "a probe is ping:HOST, quorum or https://HOST[:PORT][/PATH]";
        // An argument of ping, too.
        let host = |word: &str| {
            let is_host = |c: char| c.is_ascii_alphanumeric() || "-._:%".contains(c);
            let bare = word.trim_start_matches('[').trim_end_matches(']');
            let is_good = !bare.is_empty() && !bare.starts_with('-') && bare.chars().all(is_host);
            is_good.then(|| bare.to_owned()).ok_or_else(|| format!("'{text}': contains no host; {known}"))
        };
        if text == "quorum" {
            return Ok(Self::Quorum);
        }
        if let Some(word) = text.strip_prefix("ping:") {
            return host(word).map(Self::Ping);
        }

        let Some(rest) = text.strip_prefix("https://") else { return Err(format!("'{text}': {known}")) };
        let (server, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if server.contains('@') {
            return Err(format!("a probe does not log in, and cannot contain a user; {known}"));
        }

        let (name, port) = match server.rsplit_once(':') {
            Some((name, port)) if !port.ends_with(']') => {
                (name, port.parse().map_err(|_| format!("'{text}': '{port}' is not a port"))?)
            }
            _ => (server, HTTPS_PORT),
        };
        let probe = Self::Https { host: host(name)?, port, path: path.to_owned() };
        if Site::of(&probe.to_string()).is_none() {
            return Err(format!("'{text}' is not an address; {known}"));
        }
        Ok(probe)
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ping(host) => write!(f, "ping:{host}"),
            Self::Quorum => f.write_str("quorum"),
            Self::Https { host, port, path } if host.contains(':') => {
                write!(f, "https://[{host}]:{port}{path}")
            }
            Self::Https { host, port, path } => write!(f, "https://{host}:{port}{path}"),
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
    /// Returns the probe for a log, without the query of its address.
    fn told(&self) -> String {
        let whole = self.to_string();
        whole.split(['?', '#']).next().unwrap_or_default().to_owned()
    }

    /// Errors: why it is not good, with its name, within `LIMIT`.
    fn ask(&self, host: &Host) -> Result<(), String> {
        let answered = match self {
            Self::Ping(target) => ping(host, target),
            Self::Quorum => match pmxcfs::state(host) {
                PmxcfsState::Live { quorate: true } => Ok(()),
                PmxcfsState::Live { quorate: false } => Err("there is none".to_owned()),
                _ => Err(format!("{} is not there, or does not answer", pmxcfs::MOUNT)),
            },
            Self::Https { .. } => answers(&self.to_string(), LIMIT),
        };
        answered.map_err(|why| format!("{}: {why}", self.told()))
    }
}

/// Asks all at once, so that many take no longer than one. Errors: those that are not good, each with why.
pub fn ask(host: &Host, probes: &[Probe]) -> Result<(), String> {
    let failed: Vec<String> = std::thread::scope(|scope| {
        let asked: Vec<_> = probes.iter().map(|probe| threads::start(scope, || probe.ask(host))).collect();
        let told = asked.into_iter().zip(probes);
        let told = told.map(|(asked, probe)| asked.join().unwrap_or_else(|| Err(probe.told())));
        told.filter_map(Result::err).collect()
    });
    if failed.is_empty() { Ok(()) } else { Err(failed.join("; ")) }
}

fn ping(host: &Host, target: &str) -> Result<(), String> {
    let cmd = Cmd::new(["ping", "-c", "1", "-W", "2", target], LIMIT);
    match host.exec.run(&cmd) {
        Ok(Some(output)) if output.status == ToolStatus::Exit(0) => Ok(()),
        Ok(Some(output)) => Err(format!("no answer ({})", output.status)),
        Ok(None) => Err("ping is not installed".to_owned()),
        Err(error) => Err(format!("{error:#}")),
    }
}

/// Asks whether an HTTPS server is there, whoever it is, and not broken. Errors: why not, without the address.
pub fn answers(url: &str, limit: Duration) -> Result<(), String> {
    let request = HttpRequest { method: "GET", url, headers: &[], body: None, limit, max_bytes: 0 };
    let client = Client::of_anyone().map_err(|error| format!("{error:#}"))?;
    match client.send(&request) {
        Ok(answer) if answer.status < BROKEN_STATUS => Ok(()),
        Ok(answer) => Err(format!("answers with status {}", answer.status)),
        Err(trouble) => Err(format!("{:#}", trouble.error)),
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
            ("https://nas.lan/health?deep=1", "https://nas.lan:443/health?deep=1"),
            ("https://nas:8006", "https://nas:8006"),
            ("https://nas?x", "https://nas:443?x"),
            ("https://[fd00::1]:8006/", "https://[fd00::1]:8006/"),
            ("https://fd00::1]/", "https://[fd00::1]:443/"),
        ] {
            let probe: Probe = text.parse().unwrap();
            assert_eq!(probe.to_string(), shown);
            assert_eq!(shown.parse::<Probe>().unwrap(), probe);
        }
    }

    #[test]
    fn what_is_no_probe_is_told() {
        for text in [
            "",
            "ping:",
            "ping:-f",
            "ping:a b",
            "http://x",
            "https://",
            "https:///x",
            "https://x:y",
            "https://x:",
            "https://x/a b",
            "Quorum",
        ] {
            assert!(text.parse::<Probe>().is_err(), "{text}");
        }
        let told = "https://bob:s3cret@nas/".parse::<Probe>().unwrap_err();
        assert!(!told.contains("s3cret") && told.contains("does not log in"), "{told}");
    }
}
