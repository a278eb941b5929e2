//! What HTTP channels share: by what a server is known, what an answer means, and that no error tells a secret.

use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use serde::Deserialize;

use super::Failure;
use crate::model::secret::{MASK, Secret};
use crate::model::section::{Section, SyntaxError};
use crate::sys::host::Host;
use crate::sys::http::{Answer, Client, Fingerprint, Request, Site, Trust};
use crate::sys::{files, hex};

const ANSWER_MAX_BYTES: u64 = 64 * 1024;
const CA_FILE_MAX_BYTES: u64 = 4 << 20;
/// Of what a server says to an error.
const SAID_MAX_CHARS: usize = 200;

/// Keys of every channel that speaks to a server over TLS.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Access {
    /// PEM, of the authorities that the server is known by instead of the system's.
    pub ca_file: Option<String>,
    /// SHA-256 of the server's certificate.
    pub fingerprint: Option<Fingerprint>,
    /// Also without TLS, to another machine.
    pub allow_http: bool,
}

impl Access {
    /// Splits its keys off a section.
    pub fn split(section: &Section) -> Result<(Self, Section), SyntaxError> {
        let (own, rest) = section.split(&["ca-file", "fingerprint", "allow-http"]);
        let access: Self = own.read()?;
        if access.ca_file.as_ref().is_some_and(|path| !path.starts_with('/')) {
            return Err(section.error_at("ca-file", "ca-file: must be absolute"));
        }
        if access.ca_file.is_some() && access.fingerprint.is_some() {
            let error = section.error_at("ca-file", "ca-file and fingerprint do not go together");
            return Err(error.hinted("keep one of them"));
        }
        Ok((access, rest))
    }

    pub fn trust(&self, host: &Host) -> Result<Trust> {
        Ok(match (&self.fingerprint, &self.ca_file) {
            (Some(pin), _) => Trust::Pins(vec![pin.clone()]),
            (None, Some(path)) => {
                let pem = files::read_small(host.root(), path, CA_FILE_MAX_BYTES);
                Trust::Authority(pem.with_context(|| format!("ca-file {path}"))?)
            }
            (None, None) => Trust::Roots,
        })
    }

    /// The address under `key`, which may be secret itself. What it says is in no error.
    pub fn site(&self, section: &Section, key: &str, url: &str) -> Result<Site, SyntaxError> {
        let site = Site::of(url).ok_or_else(|| {
            section
                .error_at(key, &format!("{key}: this is no address of a server"))
                .hinted("as https://example.org/path")
        })?;
        if site.has_user {
            let error = section.error_at(key, &format!("{key}: a user has no place in an address"));
            return Err(error.hinted("the other keys of this section say how to log in"));
        }
        if !site.https && !site.loopback && !self.allow_http {
            let error = section.error_at(key, &format!("{key}: without TLS everyone on the way can read it"));
            return Err(error.hinted("use https, or add a line 'allow-http yes' where you trust the network"));
        }
        Ok(site)
    }
}

/// One request that has to be answered with a success.
pub struct Call<'a> {
    pub access: &'a Access,
    pub method: &'a str,
    pub url: &'a str,
    pub headers: Vec<(String, String)>,
    pub body: Option<Vec<u8>>,
    /// Masked in what the server says.
    pub secrets: Vec<&'a str>,
    /// Whether a server that has enough of us (429) is asked again.
    pub when_full: bool,
}

impl<'a> Call<'a> {
    pub fn post(access: &'a Access, url: &'a str, body: &serde_json::Value) -> Self {
        let headers = vec![("Content-Type".to_owned(), "application/json".to_owned())];
        let body = Some(body.to_string().into_bytes());
        Self { access, method: "POST", url, headers, body, secrets: Vec::new(), when_full: true }
    }

    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    #[must_use]
    pub fn hiding(mut self, secret: &'a Secret) -> Self {
        self.secrets.push(secret.reveal());
        self
    }

    /// A server that has enough of us is left alone.
    #[must_use]
    pub fn not_when_full(self) -> Self {
        Self { when_full: false, ..self }
    }

    /// The answer of a success.
    pub fn make(&self, host: &Host, limit: Duration) -> Result<Answer, Failure> {
        let site = Site::of(self.url).ok_or_else(|| Failure::lasting(anyhow!("this is no address")))?;
        let trust = if site.https { self.access.trust(host) } else { Ok(Trust::Pins(Vec::new())) };
        let client = trust.and_then(|trust| Client::new(&trust, !site.https)).map_err(Failure::lasting)?;
        let request = Request {
            method: self.method,
            url: self.url,
            headers: &self.headers,
            body: self.body.as_deref(),
            limit,
            max_bytes: ANSWER_MAX_BYTES,
        };
        let answer = client.send(&request).map_err(|trouble| {
            let error = trouble.error.context(site.name.clone());
            if trouble.passing { Failure::passing(error) } else { Failure::lasting(error) }
        })?;
        match answer.status {
            200..=299 => Ok(answer),
            300..=399 => Err(Failure::lasting(anyhow!(
                "{}: status {}: it sends us elsewhere, where nothing of ours goes",
                site.name,
                answer.status
            ))),
            status => {
                let error = anyhow!("{}: status {status}{}", site.name, self.said(&answer.body));
                let again = matches!(status, 408 | 425 | 500..=599) || (status == 429 && self.when_full);
                let wait = Duration::from_secs(answer.retry_after.unwrap_or_default());
                Err(Failure { error, again: again.then_some(wait) })
            }
        }
    }

    /// `: ` and what the server said, on one short line without secrets; empty when it said nothing.
    pub fn said(&self, body: &[u8]) -> String {
        let text = hide(&String::from_utf8_lossy(body), &self.secrets);
        let words: Vec<&str> = text.split_whitespace().collect();
        let line: String = words.join(" ").chars().take(SAID_MAX_CHARS).collect();
        if line.is_empty() { line } else { format!(": {line}") }
    }
}

/// The text without the secrets, plain or in base64, when a server repeats them.
pub fn hide(text: &str, secrets: &[&str]) -> String {
    let mut text = text.to_owned();
    for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
        text = text.replace(secret, MASK).replace(&STANDARD.encode(secret), MASK);
    }
    text
}

/// Hex of HMAC-SHA256.
pub fn signature(key: &Secret, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.reveal().as_bytes());
    hex(hmac::sign(&key, body).as_ref())
}

/// An address and what is below it.
pub fn below(base: &str, path: &str) -> String {
    format!("{}/{path}", base.trim_end_matches('/'))
}

/// At most so many characters, the end marked.
pub fn cut(text: &str, max_chars: usize) -> String {
    if text.chars().count() <= max_chars {
        return text.to_owned();
    }
    text.chars().take(max_chars.saturating_sub(1)).chain(['…']).collect()
}

/// Version 4: 122 bits by chance. Without a source of them it is the same for all, which mixes up names and nothing
/// else.
pub fn random_uuid() -> String {
    let mut bytes = [0; 16];
    let _ = SystemRandom::new().fill(&mut bytes);
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let text = hex(&bytes);
    [&text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..]].join("-")
}
