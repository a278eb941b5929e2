//! `gotify`: a Gotify server, with the token of an application.

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;

use super::call::{Access, Call, below};
use super::{Channel, Sent};
use crate::model::message::Message;
use crate::model::problem::Outcome;
use crate::model::secret::Secret;
use crate::model::section::{Section, SyntaxError};
use crate::sys::host::Host;
use crate::sys::net::http::Site;

const PRIORITY_MAX: u8 = 10;

/// `gotify: ID`.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Options {
    url: String,
    token: Secret,
    #[serde(default = "low")]
    priority_ok: u8,
    #[serde(default = "middle")]
    priority_warning: u8,
    #[serde(default = "high")]
    priority_failure: u8,
}

/// Below 4 a phone makes no sound.
fn low() -> u8 {
    2
}

fn middle() -> u8 {
    5
}

fn high() -> u8 {
    8
}

pub struct Gotify {
    options: Options,
    access: Access,
    site: Site,
}

pub(super) fn open(section: &Section) -> Result<Box<dyn Channel>, SyntaxError> {
    let (access, rest) = Access::split(section)?;
    let options: Options = rest.read()?;
    for (key, value) in [
        ("priority-ok", options.priority_ok),
        ("priority-warning", options.priority_warning),
        ("priority-failure", options.priority_failure),
    ] {
        if value > PRIORITY_MAX {
            return Err(section.error_at(key, &format!("{key}: at most {PRIORITY_MAX}")));
        }
    }
    let site = access.base(section, "url", &options.url, "/message")?;
    Ok(Box::new(Gotify { options, access, site }))
}

impl Gotify {
    /// `priorities`: of what is ok, warned, failed.
    pub fn new(url: &str, token: Secret, priorities: [u8; 3], access: Access, site: Site) -> Self {
        let [priority_ok, priority_warning, priority_failure] = priorities;
        let url = url.to_owned();
        Self {
            options: Options { url, token, priority_ok, priority_warning, priority_failure },
            access,
            site,
        }
    }
}

impl Channel for Gotify {
    fn place(&self) -> String {
        self.site.name.clone()
    }

    fn send(&self, message: &Message, host: &Host, limit: Duration) -> Sent {
        let priority = match message.details.outcome {
            Outcome::Ok => self.options.priority_ok,
            Outcome::Warned => self.options.priority_warning,
            Outcome::Failed => self.options.priority_failure,
        };
        let body = json!({ "title": message.subject, "message": message.text, "priority": priority });
        // In a header, not in the address: servers and proxies log addresses.
        let call = Call::post(&self.access, &below(&self.options.url, "message"), &body)
            .header("X-Gotify-Key", self.options.token.reveal())
            .hiding(&self.options.token)
            .make(host, limit);
        call.map(drop)
    }
}
