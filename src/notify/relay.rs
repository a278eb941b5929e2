//! `relay`: an HTTP server of the admin's choice that makes a mail of what it gets: structured JSON, never a
//! finished text. Signed, and with a token. When it has no more room for us, the host's own mail system is told.

use std::time::Duration;

use anyhow::anyhow;
use serde::Deserialize;
use serde_json::{Value, json};

use super::call::{Access, Call, signature};
use super::sendmail::Sendmail;
use super::{Channel, Failure, Sent, mail};
use crate::model::message::Message;
use crate::model::secret::Secret;
use crate::model::section::{Section, SyntaxError};
use crate::sys::host::Host;
use crate::sys::net::http::Site;

pub(super) const SECRETS: &[&str] = &["token", "hmac-key"];

/// `relay: ID`.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Options {
    url: String,
    token: Secret,
    hmac_key: Secret,
    to: Vec<String>,
    #[serde(default = "yes")]
    fallback: bool,
}

fn yes() -> bool {
    true
}

struct Relay {
    options: Options,
    access: Access,
    site: Site,
    fallback: Option<Sendmail>,
}

pub(super) fn open(section: &Section) -> Result<Box<dyn Channel>, SyntaxError> {
    let (access, rest) = Access::split(section)?;
    let options: Options = rest.read()?;
    let to = mail::addresses(section, "to", &options.to)?;
    let site = access.site(section, "url", &options.url)?;
    let fallback = options.fallback.then_some(Sendmail { to, from: None });
    Ok(Box::new(Relay { options, access, site, fallback }))
}

impl Channel for Relay {
    fn place(&self) -> String {
        format!("mail to {} by {}", self.options.to.join(", "), self.site.name)
    }

    fn send(&self, message: &Message, host: &Host, limit: Duration) -> Sent {
        let body = json!({
            "to": self.options.to,
            "subject": message.subject,
            "report": message.details,
            "t": message.details.at.as_second(),
        });
        let mut call = Call::post(&self.access, &self.options.url, &body)
            .header("Authorization", format!("Bearer {}", self.options.token.reveal()))
            .hiding(&self.options.token)
            .hiding(&self.options.hmac_key)
            .not_when_full();
        let signature = signature(&self.options.hmac_key, call.body.as_deref().unwrap_or_default());
        call = call.header("X-Signature", signature);

        let answer = call.make(host, limit)?;
        // The legacy relay, too, says no in a success.
        let refused =
            serde_json::from_slice::<Value>(&answer.body).is_ok_and(|said| said["success"] == false);
        if refused {
            let error = anyhow!(
                "{}: it accepted the mail and did not send it{}",
                self.site.name,
                call.said(&answer.body)
            );
            return Err(Failure::lasting(error));
        }
        Ok(())
    }

    fn fallback(&self) -> Option<&dyn Channel> {
        self.fallback.as_ref().map(|channel| channel as &dyn Channel)
    }
}
