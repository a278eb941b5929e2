//! `webhook`: an HTTP request in a form that the admin writes, or in that of Discord, Slack, Teams or Pushover.

mod cards;

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::call::{Access, Call, signature};
use super::template::{Template, Writing};
use super::{Channel, Failure, Sent};
use crate::model::message::Message;
use crate::model::nearest::nearest;
use crate::model::secret::Secret;
use crate::model::section::{Section, SectionEntry, SyntaxError};
use crate::sys::host::Host;
use crate::sys::net::http::Site;

const PUSHOVER: &str = "https://api.pushover.net/1/messages.json";
const JSON: &str = "application/json";
/// The variable of templates that stands for the section's own secret.
const SECRET: &str = "secret";

/// The address of a chat's webhook is all that is needed to write there.
pub(super) fn secrets(section: &Section) -> &'static [&'static str] {
    match section.get("format") {
        Some("discord" | "slack" | "teams") => &["url", "secret", "secret-header", "token", "user"],
        _ => &["secret", "secret-header", "token", "user"],
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    Discord,
    Slack,
    Teams,
    Pushover,
    #[default]
    Generic,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Auth {
    #[default]
    None,
    Bearer,
    Basic,
    /// Signs the body.
    Hmac,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Method {
    #[default]
    Post,
    Put,
    Patch,
    Get,
}

impl Method {
    fn word(self) -> &'static str {
        match self {
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Get => "GET",
        }
    }
}

/// `webhook: ID`.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Options {
    #[serde(default)]
    format: Format,
    url: Option<Secret>,
    #[serde(default)]
    method: Method,
    /// `Name: value`.
    #[serde(default)]
    header: Vec<String>,
    #[serde(default)]
    secret_header: Vec<Secret>,
    #[serde(default)]
    auth: Auth,
    username: Option<String>,
    secret: Option<Secret>,
    content_type: Option<String>,
    /// Lines of a template.
    #[serde(default)]
    body: Vec<String>,
    /// Token of Pushover's application; `user` is who reads it.
    token: Option<Secret>,
    user: Option<Secret>,
}

struct Webhook {
    options: Options,
    url: Template,
    body: Option<Template>,
    headers: Vec<(String, String)>,
    content_type: String,
    access: Access,
    site: Site,
}

pub(super) fn open(section: &Section) -> Result<Box<dyn Channel>, SyntaxError> {
    let (access, rest) = Access::split(section)?;
    let options: Options = rest.read()?;
    let usual = (options.format == Format::Pushover).then_some(PUSHOVER);
    let url = options.url.as_ref().map(Secret::reveal).or(usual);
    let url = url.ok_or_else(|| section.error_at("", "'url' is missing"))?;
    check_keys(section, &options)?;

    // A server does not depend on a run: only what is behind it may.
    let fixed = url.split("{{").next().unwrap_or_default();
    if fixed != url && fixed.matches('/').count() < 3 {
        return Err(section.error_at("url", "url: the server's name cannot be a template"));
    }

    let site = access.site(section, "url", fixed)?;
    let url = template(section, "url", url, &options)?;
    let body = body(section, &options)?;
    let headers = headers(section, &options)?;
    let content_type = options.content_type.clone().unwrap_or_else(|| JSON.to_owned());
    Ok(Box::new(Webhook { options, url, body, headers, content_type, access, site }))
}

/// Keys that do not go together, or have to.
fn check_keys(section: &Section, options: &Options) -> Result<(), SyntaxError> {
    let generic = options.format == Format::Generic;
    for key in ["method", "body", "content-type"] {
        if section.get(key).is_some() && !generic {
            return Err(section
                .error_at(key, &format!("{key}: the format defines it"))
                .hinted("delete this line, or use 'format generic'"));
        }
    }

    let private = |key: &str| {
        let error = section.error_at("format", &format!("'{key}' is missing"));
        error.hinted(format!("put `{key}` under 'webhook: {}' in secrets.cfg", section.id))
    };
    for (key, value) in [("token", &options.token), ("user", &options.user)] {
        match (options.format, value) {
            (Format::Pushover, None) => return Err(private(key)),
            (Format::Pushover, Some(_)) | (_, None) => {}
            (_, Some(_)) => {
                return Err(section.error_at(key, &format!("'{key}' is only valid with 'format pushover'")));
            }
        }
    }

    if options.auth != Auth::None && options.secret.is_none() {
        let error = section.error_at("auth", "auth: its 'secret' is missing");
        return Err(error.hinted(format!("put `secret` under 'webhook: {}' in secrets.cfg", section.id)));
    }

    if (options.auth == Auth::Basic) != options.username.is_some() {
        return Err(section.error_at("auth", "'username' and 'auth basic' must be used together"));
    }
    if options.method == Method::Get && (!options.body.is_empty() || options.auth == Auth::Hmac) {
        return Err(section.error_at("method", "method: a GET has no body to send or to sign"));
    }
    Ok(())
}

fn template(section: &Section, key: &str, text: &str, options: &Options) -> Result<Template, SyntaxError> {
    let template = Template::parse(text).map_err(|why| section.error_at(key, &format!("{key}: {why}")))?;
    let known: Vec<&str> = Message::VARIABLES.into_iter().chain([SECRET]).collect();

    for name in template.names() {
        if name == SECRET && options.secret.is_none() {
            return Err(section.error_at(key, &format!("{key}: 'secret' is missing in secrets.cfg")));
        }
        if !known.contains(&name) {
            let hint = nearest(name, &known).map_or_else(
                || format!("the variables are: {}", known.join(", ")),
                |near| format!("did you mean '{near}'?"),
            );
            return Err(section.error_at(key, &format!("{key}: unknown variable '{name}'")).hinted(hint));
        }
    }
    Ok(template)
}

/// Every line is looked at by itself, so that a mistake has its own line.
fn body(section: &Section, options: &Options) -> Result<Option<Template>, SyntaxError> {
    for entry in section.entries.iter().filter(|entry: &&SectionEntry| entry.key == "body") {
        let alone = Section { entries: vec![entry.clone()], ..section.clone() };
        template(&alone, "body", &entry.value, options)?;
    }
    if options.body.is_empty() {
        return Ok(None);
    }
    template(section, "body", &options.body.join("\n"), options).map(Some)
}

fn headers(section: &Section, options: &Options) -> Result<Vec<(String, String)>, SyntaxError> {
    /// The request's own.
    const TAKEN: [&str; 5] = ["host", "content-length", "content-type", "transfer-encoding", "connection"];

    let public = options.header.iter().map(|text| ("header", text.as_str()));
    let private = options.secret_header.iter().map(|text| ("secret-header", text.reveal()));
    let mut headers = Vec::new();
    for (key, text) in public.chain(private) {
        let (name, value) = text.split_once(':').unwrap_or_default();
        let (name, value) = (name.trim(), value.trim());
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        if name.is_empty()
            || !name.bytes().all(is_token)
            || !value.bytes().all(|byte| (b' '..=b'~').contains(&byte))
        {
            return Err(section
                .error_at(key, &format!("{key}: not a header"))
                .hinted("for example Name: value"));
        }
        if TAKEN.contains(&name.to_ascii_lowercase().as_str()) {
            return Err(section
                .error_at(key, &format!("{key}: {name} cannot be set"))
                .hinted("content-type is a key of its own"));
        }
        if key == "header" && is_login(name) {
            let what = format!("a secret (header {name}) must not be in a file that others can read");
            let hint = format!(
                "create a new one, and put it under 'webhook: {}' in secrets.cfg as `secret-header {name}: VALUE`",
                section.id
            );
            return Err(section.error_at(key, &what).hinted(hint));
        }
        headers.push((name.to_owned(), value.to_owned()));
    }
    Ok(headers)
}

/// Reports whether a name, in the words of services, is one by which a server knows who asks.
fn is_login(name: &str) -> bool {
    const WHOLE: [&str; 3] = ["authorization", "proxy-authorization", "cookie"];
    const PARTS: [&str; 6] = ["token", "secret", "password", "api-key", "apikey", "access-key"];
    let name = name.to_ascii_lowercase();
    WHOLE.contains(&name.as_str()) || PARTS.iter().any(|part| name.contains(part))
}

impl Webhook {
    fn content(&self, message: &Message, value: &dyn Fn(&str) -> Option<String>) -> Result<Vec<u8>, Failure> {
        let secret =
            |secret: &Option<Secret>| secret.as_ref().map(Secret::reveal).unwrap_or_default().to_owned();
        let json = match (self.options.format, &self.body) {
            (Format::Discord, _) => cards::discord(message),
            (Format::Slack, _) => cards::slack(message),
            (Format::Teams, _) => cards::teams(message),
            (Format::Pushover, _) => {
                cards::pushover(message, &secret(&self.options.token), &secret(&self.options.user))
            }
            (Format::Generic, Some(body)) => {
                return Ok(body.render(Writing::of_type(&self.content_type), value).into_bytes());
            }
            (Format::Generic, None) => serde_json::to_value(message).map_err(Failure::lasting)?,
        };
        Ok(json.to_string().into_bytes())
    }
}

impl Channel for Webhook {
    fn place(&self) -> String {
        self.site.name.clone()
    }

    fn send(&self, message: &Message, host: &Host, limit: Duration) -> Sent {
        let options = &self.options;
        let own = options.secret.as_ref().map(Secret::reveal).unwrap_or_default();
        let value = |name: &str| if name == SECRET { Some(own.to_owned()) } else { message.variable(name) };
        let url = self.url.render(Writing::Url, &value);
        let body = match options.method {
            Method::Get => None,
            _ => Some(self.content(message, &value)?),
        };
        let mut headers = self.headers.clone();
        let mut header = |name: &str, value: String| headers.push((name.to_owned(), value));
        if let Some(body) = &body {
            header("Content-Type", self.content_type.clone());
            if let (Auth::Hmac, Some(secret)) = (options.auth, &options.secret) {
                header("X-Signature", signature(secret, body));
                header("X-Signature-Algorithm", "hmac-sha256".to_owned());
            }
        }

        match options.auth {
            Auth::Bearer => header("Authorization", format!("Bearer {own}")),
            Auth::Basic => {
                let user = options.username.as_deref().unwrap_or_default();
                header("Authorization", format!("Basic {}", STANDARD.encode(format!("{user}:{own}"))));
            }
            Auth::None | Auth::Hmac => {}
        }

        let private = [&options.url, &options.secret, &options.token, &options.user];
        let values = options.secret_header.iter().filter_map(|text| text.reveal().split_once(':'));
        let secrets =
            private.into_iter().flatten().map(Secret::reveal).chain(values.map(|(_, value)| value.trim()));
        let secrets = secrets.collect();
        let (access, method) = (&self.access, options.method.word());

        Call { access, method, url: &url, headers, body, secrets, when_full: true }
            .make(host, limit)
            .map(drop)
    }
}
