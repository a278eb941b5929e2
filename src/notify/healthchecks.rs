//! `healthchecks`: healthchecks.io and whatever speaks as it does. It hears of the beginning and of the end, and
//! raises the alarm itself when it hears nothing: a host that is down tells nobody else.

use std::time::Duration;

use serde::Deserialize;

use super::call::{Access, Call, below, random_uuid};
use super::{Channel, Sent};
use crate::model::message::Message;
use crate::model::problem::Outcome;
use crate::model::secret::Secret;
use crate::model::section::{Section, SyntaxError};
use crate::sys::host::Host;
use crate::sys::net::http::Site;

/// The address is a secret: anyone who knows it can say that all is well.
pub(super) const SECRETS: &[&str] = &["url"];

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum FailOn {
    Warning,
    #[default]
    Failure,
}

/// `healthchecks: ID`.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Options {
    url: Secret,
    #[serde(default)]
    fail_on: FailOn,
}

struct Healthchecks {
    options: Options,
    access: Access,
    site: Site,
    /// Ties the end of a run to its beginning.
    run: String,
}

pub(super) fn open(section: &Section) -> Result<Box<dyn Channel>, SyntaxError> {
    let (access, rest) = Access::split(section)?;
    let options: Options = rest.read()?;
    let site = access.site(section, "url", options.url.reveal())?;
    Ok(Box::new(Healthchecks { options, access, site, run: random_uuid() }))
}

impl Healthchecks {
    fn ping(&self, event: &str, body: Option<String>, host: &Host, limit: Duration) -> Sent {
        let url = address(self.options.url.reveal(), event, &self.run);
        let body = body.map(String::into_bytes);
        let headers = vec![("Content-Type".to_owned(), "text/plain; charset=utf-8".to_owned())];
        let secrets = vec![self.options.url.reveal()];
        let (access, method) = (&self.access, if body.is_some() { "POST" } else { "GET" });
        Call { access, method, url: &url, headers, body, secrets, when_full: true }
            .make(host, limit)
            .map(drop)
    }
}

/// The event belongs to the path, before what the administrator asks for (`?create=1`).
fn address(url: &str, event: &str, run: &str) -> String {
    let (path, query) = url.split_once('?').unwrap_or((url, ""));
    let joint = if query.is_empty() { "" } else { "&" };
    format!("{}?{query}{joint}rid={run}", below(path, event).trim_end_matches('/'))
}

impl Channel for Healthchecks {
    fn place(&self) -> String {
        self.site.name.clone()
    }

    fn begin(&self, host: &Host, limit: Duration) -> Sent {
        self.ping("start", None, host, limit)
    }

    fn send(&self, message: &Message, host: &Host, limit: Duration) -> Sent {
        let failed = match self.options.fail_on {
            FailOn::Warning => message.details.outcome >= Outcome::Warned,
            FailOn::Failure => message.details.outcome == Outcome::Failed,
        };
        // A test is neither good nor bad news.
        let event = if message.is_test() {
            "log"
        } else if failed {
            "fail"
        } else {
            ""
        };
        let body = format!("{}\n{}", message.text, message.log);
        self.ping(event, Some(body), host, limit)
    }
}

#[cfg(test)]
mod tests {
    use super::address;

    #[test]
    fn an_event_stands_in_the_path_and_the_administrators_query_stays() {
        for (url, event, asked) in [
            ("https://hc.example.org/ID", "", "https://hc.example.org/ID?rid=R"),
            ("https://hc.example.org/ID/", "start", "https://hc.example.org/ID/start?rid=R"),
            (
                "https://hc.example.org/KEY/slug?create=1",
                "fail",
                "https://hc.example.org/KEY/slug/fail?create=1&rid=R",
            ),
        ] {
            assert_eq!(address(url, event, "R"), asked);
        }
    }
}
