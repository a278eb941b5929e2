//! The API of the running node, asked with a token that may only read. What it does not tell, for whatever
//! reason, the product's own tools are asked for: a token makes a run faster, never poorer.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::catalog::api::ApiAccess;
use crate::config;
use crate::model::problem::Problem;
use crate::sys::host::Host;
use crate::sys::net::http::{CertFingerprint, Client};
use crate::sys::pmxcfs;

/// Time limit of a daemon on this very host.
const PROBE_LIMIT: Duration = Duration::from_secs(8);
const CERTIFICATE_MAX_BYTES: u64 = 1 << 20;
/// The API path that lists the rights of the token, by path.
const PERMISSIONS: &str = "/access/permissions";
const PERMISSIONS_MAX_BYTES: u64 = 4 << 20;

/// An API that has answered, with a token that sees everything.
pub struct ApiSession {
    api: &'static ApiAccess,
    client: Client,
    configured: config::ApiConfig,
    authorization: String,
}

impl ApiSession {
    /// None when the API cannot be asked: then the problem says why, and the tools must answer.
    pub fn open(
        host: &Host,
        api: &'static ApiAccess,
        configured: &config::ApiConfig,
        problems: &mut Vec<Problem>,
    ) -> Option<Self> {
        let opened = Self::connect(host, api, configured).and_then(|session| {
            problems.extend(session.check_token()?);
            Ok(session)
        });

        opened
            .map_err(|error| {
                let what = format!(
                    "api '{}': {error:#}; the node's own tools were used instead",
                    api.product.word()
                );
                problems.push(Problem::warning(what).hint(format!(
                    "see `{}: {}` in the configuration; the token needs the role {} on /",
                    config::API,
                    api.product.word(),
                    api.role
                )));
            })
            .ok()
    }

    fn connect(host: &Host, api: &'static ApiAccess, configured: &config::ApiConfig) -> Result<Self> {
        let pins = match &configured.fingerprint {
            Some(pin) => vec![pin.clone()],
            None => own_certificates(host, api)?,
        };
        let authorization = api.authorization(&configured.token, configured.secret.reveal());
        Ok(Self { api, client: Client::pinned(pins)?, configured: configured.clone(), authorization })
    }

    /// A token that lacks a privilege gets short lists without a word, so it is not used at all.
    fn check_token(&self) -> Result<Option<Problem>> {
        let data = self.get(PERMISSIONS, &[], PROBE_LIMIT, PERMISSIONS_MAX_BYTES)?;
        let root = data.get("/").and_then(Value::as_object);
        let has = |privilege: &str| root.is_some_and(|all| all.contains_key(privilege));
        let missing: Vec<&str> = self.api.audit.iter().copied().filter(|privilege| !has(privilege)).collect();
        anyhow::ensure!(
            missing.is_empty(),
            "the token '{}' lacks {} on / and cannot see everything",
            self.configured.token,
            missing.join(", ")
        );

        let more = root.into_iter().flatten().any(|(privilege, _)| !privilege.ends_with(".Audit"));
        Ok(more.then(|| {
            let token = &self.configured.token;
            Problem::notice(format!(
                "api '{}': the token '{token}' may do more than read",
                self.api.product.word()
            ))
            .hint(format!("the role {} on / is sufficient", self.api.role))
        }))
    }

    /// The `data` of the answer. Errors: no answer, another certificate, a status beside 200, no JSON.
    fn get(&self, path: &str, query: &[(&str, &str)], limit: Duration, max_bytes: u64) -> Result<Value> {
        let url = self.url(path, query);
        let answer =
            self.client.get(&url, &self.authorization, limit, max_bytes).with_context(|| url.clone())?;

        let meaning = match answer.status {
            200 => {
                let mut body: Value =
                    serde_json::from_slice(&answer.body).ok().with_context(|| format!("{url}: not JSON"))?;
                return body
                    .get_mut("data")
                    .map(Value::take)
                    .with_context(|| format!("{url}: an answer without data"));
            }
            401 => ": the token or its secret is wrong",
            403 => ": the token has no permission to read it",
            _ => "",
        };
        anyhow::bail!("{url}: status {}{meaning}", answer.status)
    }

    pub fn url(&self, path: &str, query: &[(&str, &str)]) -> String {
        self.api.url(&self.configured.server, self.configured.port, path, query)
    }

    /// Reads as `get` does and prints as the product's tool prints it. The caller may ignore problems.
    pub fn text(
        &self,
        path: &str,
        query: &[(&str, &str)],
        limit: Duration,
        max_bytes: u64,
    ) -> Result<Vec<u8>> {
        let mut text = serde_json::to_vec(&self.get(path, query, limit, max_bytes)?)?;
        text.push(b'\n');
        Ok(text)
    }
}

/// The certificates this node may show. Read from its own disk or cluster file system: who can change
/// them there needs no token.
fn own_certificates(host: &Host, api: &ApiAccess) -> Result<Vec<CertFingerprint>> {
    let paths: Vec<String> =
        api.certificates.iter().map(|path| path.replace("{node}", &host.facts.node)).collect();
    let mut pins = Vec::new();
    for path in &paths {
        let data = match path.strip_prefix(pmxcfs::MOUNT).and_then(|below| below.strip_prefix('/')) {
            Some(below) => pmxcfs::files(host, &[below])?.into_iter().next().flatten(),
            None => crate::sys::fs::files::read_small(host.root(), path, CERTIFICATE_MAX_BYTES).ok(),
        };
        if let Some(data) = data {
            pins.push(CertFingerprint::of_pem(&data).with_context(|| path.clone())?);
        }
    }
    anyhow::ensure!(
        !pins.is_empty(),
        "this node has no certificate to verify the server with: {}",
        paths.join(", ")
    );
    Ok(pins)
}
