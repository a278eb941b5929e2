//! `ntfy`: a topic of ntfy.sh or of a private server. Anyone who knows a topic's name can read it, unless the server
//! asks for a login; so the name may stand in secrets.cfg.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::json;

use super::call::{Access, Call, fit};
use super::{Channel, Sent};
use crate::model::message::Message;
use crate::model::problem::Outcome;
use crate::model::secret::Secret;
use crate::model::section::{Section, SyntaxError};
use crate::sys::host::Host;
use crate::sys::net::http::Site;

pub(super) const SECRETS: &[&str] = &["token", "password"];
const PUBLIC: &str = "https://ntfy.sh";
/// Beyond this a message becomes a file.
const TEXT_MAX_BYTES: usize = 4096;

/// `ntfy: ID`.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Options {
    url: Option<String>,
    topic: Secret,
    token: Option<Secret>,
    username: Option<String>,
    password: Option<Secret>,
}

struct Ntfy {
    url: String,
    topic: Secret,
    login: Option<(Secret, String)>,
    access: Access,
    site: Site,
}

pub(super) fn open(section: &Section) -> Result<Box<dyn Channel>, SyntaxError> {
    let (access, rest) = Access::split(section)?;
    let options: Options = rest.read()?;
    let url = options.url.unwrap_or_else(|| PUBLIC.to_owned());
    let site = access.site(section, "url", &url)?;

    // Sent to a topic's own address all of the JSON would be its message.
    if url.trim_end_matches('/') != site.name {
        let error = section.error_at("url", "url: must be the server only, without the topic");
        return Err(error.hinted(format!("for example {}; the topic has its own line", site.name)));
    }

    let topic = options.topic.reveal();
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    if !(1..=64).contains(&topic.len()) || !topic.bytes().all(is_name) {
        return Err(section.error_at("topic", "topic: letters, digits, _ and -, at most 64"));
    }

    let login = match (options.token, options.username, options.password) {
        (None, None, None) => None,
        (Some(token), None, None) => {
            let header = format!("Bearer {}", token.reveal());
            Some((token, header))
        }
        (None, Some(user), Some(password)) => {
            let header = format!("Basic {}", STANDARD.encode(format!("{user}:{}", password.reveal())));
            Some((password, header))
        }
        _ => {
            let error = section.error_at("username", "use a token, or a username with its password");
            return Err(error.hinted("put the token or the password in secrets.cfg"));
        }
    };
    Ok(Box::new(Ntfy { url, topic: options.topic, login, access, site }))
}

impl Channel for Ntfy {
    fn place(&self) -> String {
        format!("a topic of {}", self.site.name)
    }

    fn send(&self, message: &Message, host: &Host, limit: Duration) -> Sent {
        let (priority, tag) = match message.details.outcome {
            Outcome::Ok => (2, "white_check_mark"),
            Outcome::Warned => (4, "warning"),
            Outcome::Failed => (5, "rotating_light"),
        };
        let text = fit(&message.text, TEXT_MAX_BYTES, char::len_utf8);
        let body = json!({
            "topic": self.topic.reveal(), "title": message.subject, "message": text, "priority": priority, "tags": [tag],
        });
        let mut call = Call::post(&self.access, &self.url, &body).hiding(&self.topic);
        if let Some((secret, header)) = &self.login {
            call = call.header("Authorization", header).hiding(secret);
        }
        call.make(host, limit).map(drop)
    }
}
