//! HTTP call, which channels share: by what a server is known, what an answer means, and that no error tells a
//! secret.

use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use serde::Deserialize;

use super::Failure;
use crate::model::secret::Secret;
use crate::model::section::{Section, SyntaxError};
use crate::sys::fs::files;
use crate::sys::hex;
use crate::sys::hide;
use crate::sys::host::Host;
use crate::sys::net::http::{CertFingerprint, Client, HttpRequest, HttpResponse, Site, Trust};

const ANSWER_MAX_BYTES: u64 = 64 * 1024;
const CA_FILE_MAX_BYTES: u64 = 4 << 20;
/// Limit of the text that an error repeats of what a server said.
const SAID_MAX_CHARS: usize = 200;
/// Parts of a secret address that are shorter are words, as "services" and "webhooks", not what makes it secret; its
/// end is that in any case.
const PART_MIN_BYTES: usize = 9;
const WHOLE_MIN_BYTES: usize = 4;

/// Keys of every channel that speaks to a server over TLS.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Access {
    /// PEM of the authorities that the server is known by instead of the system's.
    pub ca_file: Option<String>,
    /// SHA-256 of the server's certificate.
    pub fingerprint: Option<CertFingerprint>,
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
            let error = section.error_at("ca-file", "ca-file and fingerprint cannot be used together");
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

    /// The address of a server under `key`, to which we add the rest. `added`: that rest, which some
    /// paste along, as they do with a token of Telegram.
    pub fn base(&self, section: &Section, key: &str, url: &str, added: &str) -> Result<Site, SyntaxError> {
        let site = self.site(section, key, url)?;
        let path = url.splitn(4, '/').nth(3).unwrap_or_default().trim_end_matches('/');
        if path.contains(['?', '#', ':']) || format!("/{path}").ends_with(added) {
            let error = section.error_at(key, &format!("{key}: must be the address of the server only"));
            return Err(error.hinted(format!("for example {}", site.name)));
        }
        Ok(site)
    }

    /// The address under `key`, which may be secret itself. What it says is in no error.
    pub fn site(&self, section: &Section, key: &str, url: &str) -> Result<Site, SyntaxError> {
        let site = Site::of(url).ok_or_else(|| {
            section
                .error_at(key, &format!("{key}: not the address of a server"))
                .hinted("for example https://example.org/path")
        })?;
        if site.has_user {
            let error = section.error_at(key, &format!("{key}: an address must not contain a user"));
            return Err(error.hinted("use the other keys of this section to log in"));
        }
        if !site.https && !site.loopback && !self.allow_http {
            let error =
                section.error_at(key, &format!("{key}: without TLS others on the network can read it"));
            return Err(error.hinted("use https, or add a line 'allow-http yes' if you trust the network"));
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
    /// Set when a server that has enough of us (429) is asked again.
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
    pub fn make(&self, host: &Host, limit: Duration) -> Result<HttpResponse, Failure> {
        let site =
            Site::of(self.url).ok_or_else(|| Failure::lasting(anyhow!("this is not a valid address")))?;
        let trust = if site.https { self.access.trust(host) } else { Ok(Trust::Pins(Vec::new())) };
        let client = trust.and_then(|trust| Client::new(&trust, !site.https)).map_err(Failure::lasting)?;

        let request = HttpRequest {
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
                "{}: status {}: it redirects to {}, which is not followed: nothing was sent; \
                 use the final address in this section",
                site.name,
                answer.status,
                target(&site, answer.location.as_deref())
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
        let logins = self.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("authorization"));
        // A user with a password in base64 is none of the secrets in base64.
        let logins = logins.filter_map(|(_, value)| value.split_once(' ')).map(|(_, login)| login);
        let secrets: Vec<&str> = self.secrets.iter().copied().chain(logins).collect();
        let text = hide(&String::from_utf8_lossy(body), &secrets);
        let words: Vec<&str> = text.split_whitespace().collect();
        let line: String = words.join(" ").chars().take(SAID_MAX_CHARS).collect();
        if line.is_empty() { line } else { format!(": {line}") }
    }
}

/// Hides the secrets in what a server repeats. Of a secret address a server repeats what is behind its own name, or a
/// part of that.
pub fn hide(text: &str, secrets: &[&str]) -> String {
    let parts = secrets.iter().flat_map(|secret| secret_parts(secret));
    let all: Vec<&str> = secrets.iter().copied().chain(parts).collect();
    hide::hide(text, &all)
}

/// Returns the parts of an address that make it secret; empty for a secret that is no address.
fn secret_parts(secret: &str) -> Vec<&str> {
    let Some((_, behind)) = secret.split_once("://").and_then(|(_, rest)| rest.split_once('/')) else {
        return Vec::new();
    };
    let path = behind.split('?').next().unwrap_or_default().trim_end_matches('/');
    let last = path.rsplit('/').next().unwrap_or_default();
    let parts = behind.split(['/', '?', '&', '=']).filter(|part| part.len() >= PART_MIN_BYTES);
    let wholes = [behind, path, last].into_iter().filter(|whole| whole.len() >= WHOLE_MIN_BYTES);
    wholes.chain(parts).collect()
}

/// The server that a redirect names; of its path nothing is told.
fn target(from: &Site, location: Option<&str>) -> String {
    match location.and_then(Site::of) {
        Some(to) if to.name != from.name => to.name,
        _ => "another path of its own".to_owned(),
    }
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
    fit(text, max_chars, |_| 1)
}

/// At most so much, as `size` measures a character, the end marked.
pub fn fit(text: &str, max: usize, size: fn(char) -> usize) -> String {
    const MARK: char = '…';
    if text.chars().map(size).sum::<usize>() <= max {
        return text.to_owned();
    }
    let mut left = max.saturating_sub(size(MARK));
    let fits = |c: &char| {
        let rest = left.checked_sub(size(*c));
        left = rest.unwrap_or_default();
        rest.is_some()
    };
    text.chars().take_while(fits).chain([MARK]).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_repeats_a_part_of_a_secret_address_tells_nothing() {
        let url = "https://hooks.example.org/services/T00000000/B00000000/s3cret-s3cret?sig=an0ther-one";
        for said in [
            "Cannot POST /services/T00000000/B00000000/s3cret-s3cret",
            r#"{"path":"\/services\/T00000000\/B00000000\/s3cret-s3cret"}"#,
            "no such hook: s3cret-s3cret; sig an0ther-one",
            url,
        ] {
            let shown = hide(said, &[url]);
            assert!(!shown.contains("s3cret") && !shown.contains("an0ther"), "{shown}");
        }
        assert_eq!(hide("Cannot POST /services", &[url]), "Cannot POST /services");
    }

    #[test]
    fn a_text_is_cut_by_what_a_service_counts() {
        assert_eq!(fit("aé😀", 7, char::len_utf8), "aé😀");
        assert_eq!(fit("aé😀b", 7, char::len_utf8), "aé…");
        assert_eq!(fit("a😀b", 3, char::len_utf16), "a…");
        assert_eq!(cut("abc", 2), "a…");
    }
}
