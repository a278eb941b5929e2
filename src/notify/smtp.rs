//! `smtp`: mail through a mail server, over TLS from the start or by STARTTLS. A password never goes over a line
//! that others can read.

use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use lettre::Address;
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::{Certificate, CertificateStore, SmtpConnection, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use serde::Deserialize;

use super::call::{Access, hide};
use super::{Channel, Failure, Sent, mail};
use crate::model::message::Message;
use crate::model::secret::Secret;
use crate::model::section::{Section, SyntaxError};
use crate::sys::host::Host;
use crate::sys::net::http::{CertFingerprint, Trust};
use crate::sys::process::forked::{self, CarriedError, ChildResult};

/// What a mail takes to be sent, with its encryption, many times over.
const MEMORY_MAX_BYTES: u64 = 48 << 20;

/// Mode of TLS, in Proxmox's words.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SmtpMode {
    #[default]
    Tls,
    Starttls,
    Insecure,
}

/// `smtp: ID`.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Options {
    server: String,
    port: Option<u16>,
    #[serde(default)]
    mode: SmtpMode,
    username: Option<String>,
    password: Option<Secret>,
    from: String,
    to: Vec<String>,
}

#[derive(Clone)]
pub struct Smtp {
    pub server: String,
    pub port: u16,
    pub mode: SmtpMode,
    pub login: Option<(String, Secret)>,
    pub from: Address,
    pub to: Vec<Address>,
    pub access: Access,
}

pub(super) fn open(section: &Section) -> Result<Box<dyn Channel>, SyntaxError> {
    let (access, rest) = Access::split(section)?;
    let options: Options = rest.read()?;
    if options.server.contains(['/', '@']) || options.server.is_empty() {
        return Err(section.error_at("server", "server: must be a name or an address only"));
    }

    // An address of IPv6 has more than one colon.
    if options.server.matches(':').count() == 1 || options.server.starts_with('[') {
        let error = section.error_at("server", "server: must be a name or an address only");
        return Err(error.hinted("set the port on its own line: port N"));
    }

    let login = match (options.username, options.password) {
        (Some(user), Some(password)) => Some((user, password)),
        (None, None) => None,
        (Some(_), None) => {
            let error = section.error_at("username", "username: its password is missing");
            return Err(error.hinted(format!("put `password` under 'smtp: {}' in secrets.cfg", section.id)));
        }
        (None, Some(_)) => {
            return Err(section.error_at("password", "whose is it? 'username' is missing"));
        }
    };
    if login.is_some() && options.mode == SmtpMode::Insecure {
        let error = section.error_at("mode", "a password is not sent without TLS");
        return Err(error.hinted("use mode tls or starttls, or remove the username"));
    }

    Ok(Box::new(Smtp {
        port: options.port.unwrap_or(default_port(options.mode)),
        server: options.server,
        mode: options.mode,
        login,
        from: mail::address(section, "from", &options.from)?,
        to: mail::addresses(section, "to", &options.to)?,
        access,
    }))
}

pub fn default_port(mode: SmtpMode) -> u16 {
    match mode {
        SmtpMode::Tls => 465,
        SmtpMode::Starttls => 587,
        SmtpMode::Insecure => 25,
    }
}

impl Channel for Smtp {
    fn place(&self) -> String {
        let to: Vec<String> = self.to.iter().map(ToString::to_string).collect();
        format!("mail to {} by {}:{}", to.join(", "), self.server, self.port)
    }

    /// The library bounds each read, but not all of them, nor a name look-up, nor the length of a line: a process of
    /// its own does it, and is ended when its time is over or its memory is not enough.
    fn send(&self, message: &Message, host: &Host, limit: Duration) -> Sent {
        let mail = mail::compose(message, &self.from, &self.to).map_err(Failure::lasting)?;
        let trust = match self.mode {
            SmtpMode::Insecure => Trust::Pins(Vec::new()),
            _ => self.access.trust(host).map_err(Failure::lasting)?,
        };
        let name = ClientId::Domain(host.facts.node.clone());
        let place = format!("{}:{}", self.server, self.port);

        let sent = forked::run(limit, || {
            forked::limit_memory(MEMORY_MAX_BYTES);
            let sent = self.speak(&mail, &trust, &name, limit);
            sent.map_err(|failure| (CarriedError::from(failure.error), failure.again))
        });
        match sent {
            Ok(ChildResult::Finished(Ok(()))) => Ok(()),
            Ok(ChildResult::Finished(Err((error, again)))) => {
                Err(Failure { error: anyhow::Error::from(error).context(place), again })
            }
            Ok(ChildResult::TimedOut) => Err(Failure::passing(anyhow!("{place}: no answer in time"))),
            Err(error) => Err(Failure::lasting(error.context(format!("{place}: its answer cannot be read")))),
        }
    }
}

impl Smtp {
    fn speak(&self, mail: &lettre::Message, trust: &Trust, name: &ClientId, limit: Duration) -> Sent {
        let tls = match self.mode {
            SmtpMode::Insecure => None,
            _ => Some(self.parameters(trust).map_err(Failure::lasting)?),
        };
        let implicit = tls.as_ref().filter(|_| self.mode == SmtpMode::Tls);
        let place = (self.server.as_str(), self.port);
        let failed = |error| self.failure(&error);
        let mut server = SmtpConnection::connect(place, Some(limit), name, implicit, None).map_err(failed)?;
        if let (SmtpMode::Starttls, Some(tls)) = (self.mode, &tls) {
            if !server.can_starttls() {
                return Err(Failure::lasting(anyhow!("it offers no STARTTLS; nothing was sent")));
            }
            server.starttls(tls, name).map_err(failed)?;
        }

        if let Trust::Pins(pins) = trust
            && tls.is_some()
        {
            let shown = CertFingerprint::of_der(&server.peer_certificate().map_err(failed)?);
            if !pins.contains(&shown) {
                let error = anyhow!("it has another certificate, with the fingerprint {shown}");
                return Err(Failure::lasting(error));
            }
        }

        if let Some((user, password)) = &self.login {
            let login = Credentials::new(user.clone(), password.reveal().to_owned());
            server.auth(DEFAULT_MECHANISMS, &login).map_err(failed)?;
        }
        server.send(mail.envelope(), &mail.formatted()).map_err(failed)?;

        // It has the mail; what it says to our good-bye changes nothing.
        let _ = server.quit();
        Ok(())
    }

    fn parameters(&self, trust: &Trust) -> Result<TlsParameters> {
        let mut tls = TlsParameters::builder(self.server.clone());
        match trust {
            Trust::Roots => {}
            // The certificate itself is compared before anything of ours is said.
            Trust::Pins(_) => {
                tls = tls
                    .certificate_store(CertificateStore::None)
                    .dangerous_accept_invalid_certs(true)
                    .dangerous_accept_invalid_hostnames(true);
            }
            Trust::Authority(pem) => {
                let authority = Certificate::from_pem(pem).context("ca-file: contains no certificate")?;
                tls = tls.certificate_store(CertificateStore::None).add_root_certificate(authority);
            }
        }

        tls.build().context("TLS")
    }

    fn failure(&self, error: &lettre::transport::smtp::Error) -> Failure {
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(error);
        while let Some(inner) = cause {
            let inner_text = inner.to_string();
            if !text.contains(&inner_text) {
                text = format!("{text}: {inner_text}");
            }
            cause = inner.source();
        }

        let plain = self.login.as_ref().map(|(user, password)| format!("\0{user}\0{}", password.reveal()));
        let secrets: Vec<&str> =
            self.login.iter().map(|(_, password)| password.reveal()).chain(plain.as_deref()).collect();
        let words = hide(&text, &secrets);
        let words: Vec<&str> = words.split_whitespace().collect();
        let told = anyhow!("{}", super::call::cut(&words.join(" "), 300));

        // A wrong certificate stays wrong, and so does a permanent refusal; the rest may pass.
        let lasting =
            error.is_permanent() || error.is_client() || error.is_tls() || text.contains("certificate");
        if lasting { Failure::lasting(told) } else { Failure::passing(told) }
    }
}
