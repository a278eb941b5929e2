//! Proxmox's notification targets as channels of ours: its four kinds, with its keys.

use std::time::Duration;

use anyhow::anyhow;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lettre::Address;

use super::rules::values;
use crate::model::facts::Product;
use crate::model::message::Message;
use crate::model::secret::Secret;
use crate::model::section::Section;
use crate::notify::call::{Access, Call};
use crate::notify::gotify::Gotify;
use crate::notify::sendmail::Sendmail;
use crate::notify::smtp::{Smtp, SmtpMode, default_port};
use crate::notify::template::{Template, Writing};
use crate::notify::{Channel, Failure, Sent};
use crate::sys::host::Host;
use crate::sys::mail_contacts;
use crate::sys::net::http::Site;

/// Priorities of Proxmox's gotify target: info, warning, error.
const GOTIFY_PRIORITIES: [u8; 3] = [1, 5, 9];

/// Errors: a sentence without a secret.
pub fn open(section: &Section, product: Product, host: &Host) -> Result<Box<dyn Channel>, String> {
    // Proxmox speaks to servers without TLS where its administrator says so.
    let access = Access { allow_http: true, ..Access::default() };

    match section.kind.as_str() {
        "sendmail" => {
            let usual = mail_contacts::mail_from(host, product);
            let from = section.get("from-address").or(usual.as_deref()).map(address).transpose()?;
            Ok(Box::new(Sendmail { to: recipients(section, product, host)?, from }))
        }
        "smtp" => smtp(section, product, host, access),
        "gotify" => {
            let (url, token) = (required(section, "server")?, private(section, "token")?);
            let site = Site::of(url).ok_or("server: this is not a valid address of a server")?;
            Ok(Box::new(Gotify::new(url, token, GOTIFY_PRIORITIES, access, site)))
        }
        "webhook" => webhook(section, access),
        other => Err(format!("unknown kind of target '{other}'")),
    }
}

fn required<'a>(section: &'a Section, key: &str) -> Result<&'a str, String> {
    section.get(key).ok_or_else(|| format!("'{key}' is missing"))
}

fn private(section: &Section, key: &str) -> Result<Secret, String> {
    section
        .get(key)
        .map(|value| Secret::from(value.to_owned()))
        .ok_or_else(|| format!("'{key}' is missing in its private part"))
}

fn address(text: &str) -> Result<Address, String> {
    text.parse().map_err(|_| "this is not a mail address".to_owned())
}

/// Returns the addresses of a target. A user without one does not keep the mail from the others.
/// Empty: root's own, as `sendmail` finds it.
/// Errors: an address is not valid, or a user has none and nobody else is left.
fn recipients(section: &Section, product: Product, host: &Host) -> Result<Vec<Address>, String> {
    let mut to: Vec<Address> = values(section, "mailto").map(address).collect::<Result<_, _>>()?;
    let mut without = None;
    for user in values(section, "mailto-user") {
        match mail_contacts::address(host, product, user) {
            Some(text) => to.push(address(&text)?),
            None if user == "root@pam" => {}
            None => without = Some(user),
        }
    }
    to.sort_unstable_by_key(ToString::to_string);
    to.dedup();
    match without {
        Some(user) if to.is_empty() => Err(format!("user {user} has no mail address")),
        _ => Ok(to),
    }
}

fn smtp(
    section: &Section,
    product: Product,
    host: &Host,
    access: Access,
) -> Result<Box<dyn Channel>, String> {
    let mode = match section.get("mode") {
        None | Some("tls") => SmtpMode::Tls,
        Some("starttls") => SmtpMode::Starttls,
        Some("insecure") => SmtpMode::Insecure,
        Some(_) => return Err("mode: unknown value".to_owned()),
    };
    let login = match section.get("username") {
        Some(user) => Some((user.to_owned(), private(section, "password")?)),
        None => None,
    };
    if login.is_some() && mode == SmtpMode::Insecure {
        return Err("a password is not sent without TLS".to_owned());
    }

    let port = section.get("port").map(|port| port.parse().map_err(|_| "port: not a number")).transpose()?;
    let to = recipients(section, product, host)?;
    if to.is_empty() {
        return Err("there is no mail recipient".to_owned());
    }
    Ok(Box::new(Smtp {
        server: required(section, "server")?.to_owned(),
        port: port.unwrap_or(default_port(mode)),
        mode,
        login,
        from: address(required(section, "from-address")?)?,
        to,
        access,
    }))
}

struct Webhook {
    method: &'static str,
    url: Template,
    headers: Vec<(String, Template)>,
    body: Option<Template>,
    secrets: Vec<(String, Secret)>,
    access: Access,
}

fn webhook(section: &Section, access: Access) -> Result<Box<dyn Channel>, String> {
    let template = |key: &str, text: &str| {
        Template::parse(text).map_err(|why| format!("{key}: {why}; use `via system` to let Proxmox send it"))
    };
    let method = match required(section, "method")? {
        "post" => "POST",
        "put" => "PUT",
        "get" => "GET",
        _ => return Err("method: unknown value".to_owned()),
    };
    let headers = values(section, "header").map(|text| {
        let (name, value) = pair(text).ok_or("header: is not name=NAME,value=BASE64")?;
        Ok((name, template("header", &value)?))
    });
    let secrets = values(section, "secret").map(|text| {
        let (name, value) = pair(text).ok_or("a secret is missing in its private part")?;
        Ok((name, Secret::from(value)))
    });
    let body = section.get("body").map(|text| decoded(text).ok_or("body: is not BASE64")).transpose()?;

    Ok(Box::new(Webhook {
        method,
        url: template("url", required(section, "url")?)?,
        headers: headers.collect::<Result<_, String>>()?,
        body: body.map(|body| template("body", &body)).transpose()?,
        secrets: secrets.collect::<Result<_, String>>()?,
        access,
    }))
}

/// `name=NAME,value=BASE64`.
fn pair(text: &str) -> Option<(String, String)> {
    let mut parts = text.split(',').filter_map(|part| part.trim().split_once('='));
    let mut find =
        |key: &str| parts.by_ref().find(|(name, _)| *name == key).map(|(_, value)| value.to_owned());
    Some((find("name")?, decoded(&find("value")?)?))
}

fn decoded(text: &str) -> Option<String> {
    String::from_utf8(STANDARD.decode(text.trim()).ok()?).ok()
}

impl Channel for Webhook {
    fn place(&self) -> String {
        "a webhook of this host".to_owned()
    }

    fn send(&self, message: &Message, host: &Host, limit: Duration) -> Sent {
        let details = &message.details;
        let value = |name: &str| match name.split_once('.') {
            Some(("secrets", key)) => self
                .secrets
                .iter()
                .find(|(name, _)| name == key)
                .map(|(_, secret)| secret.reveal().to_owned()),
            Some(("fields", "type")) => Some(super::TYPE.to_owned()),
            Some(("fields", "hostname")) => Some(details.host.clone()),
            _ => match name {
                "title" => Some(message.subject.clone()),
                "message" => Some(message.text.clone()),
                "severity" => Some(details.severity.to_owned()),
                "timestamp" => Some(details.at.as_second().to_string()),
                _ => None,
            },
        };
        let write = |template: &Template| template.render(Writing::Plain, &value);
        let url = write(&self.url);
        let headers: Vec<(String, String)> =
            self.headers.iter().map(|(name, template)| (name.clone(), write(template))).collect();
        if headers.iter().any(|(_, value)| value.chars().any(char::is_control)) {
            return Err(Failure::lasting(anyhow!("a header would have more than one line")));
        }

        let body = self.body.as_ref().map(|body| write(body).into_bytes()).filter(|_| self.method != "GET");
        let secrets = self.secrets.iter().map(|(_, secret)| secret.reveal()).collect();
        let (access, method) = (&self.access, self.method);
        Call { access, method, url: &url, headers, body, secrets, when_full: true }
            .make(host, limit)
            .map(drop)
    }
}
