//! `sendmail`: mail through the host's own mail system, as cron sends it. Which host that mail reaches is its
//! configuration's, not ours.

use std::time::Duration;

use anyhow::anyhow;
use lettre::Address;
use serde::Deserialize;

use super::{Channel, Failure, Sent, mail};
use crate::model::message::Message;
use crate::model::section::{Section, SyntaxError};
use crate::sys::host::Host;
use crate::sys::mail_contacts;
use crate::sys::process::exec::{Cmd, ToolStatus};

const ROOT: &str = "root";

/// `sendmail: ID`.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Options {
    /// None: root's address in Proxmox, or the local root.
    #[serde(default)]
    to: Vec<String>,
    from: Option<String>,
}

#[derive(Default)]
pub struct Sendmail {
    pub to: Vec<Address>,
    pub from: Option<Address>,
}

pub(super) fn open(section: &Section) -> Result<Box<dyn Channel>, SyntaxError> {
    let options: Options = section.read()?;
    let to = mail::addresses(section, "to", &options.to)?;
    let from = options.from.map(|text| mail::address(section, "from", &text)).transpose()?;
    Ok(Box::new(Sendmail { to, from }))
}

impl Sendmail {
    /// Returns the recipients: addresses for the mail's head, and the words that the mail system gets.
    fn recipients(&self, host: &Host) -> (Vec<Address>, Vec<String>) {
        let found = mail_contacts::root_address(host).and_then(|text| text.parse().ok());
        let to = match (self.to.is_empty(), found) {
            (false, _) => self.to.clone(),
            (true, Some(found)) => vec![found],
            // Its alias says who reads root's mail.
            (true, None) => return (local_root(host).into_iter().collect(), vec![ROOT.to_owned()]),
        };
        let words = to.iter().map(ToString::to_string).collect();
        (to, words)
    }
}

fn local_root(host: &Host) -> Option<Address> {
    let named = |domain: &str| Address::new(ROOT, domain).ok();
    named(&mail_contacts::mail_domain(host)).or_else(|| named("localhost"))
}

impl Channel for Sendmail {
    fn place(&self) -> String {
        let to: Vec<String> = self.to.iter().map(ToString::to_string).collect();
        if to.is_empty() { "mail to root".to_owned() } else { format!("mail to {}", to.join(", ")) }
    }

    fn send(&self, message: &Message, host: &Host, limit: Duration) -> Sent {
        let (to, words) = self.recipients(host);
        let from = self.from.clone().or_else(|| local_root(host));
        let from =
            from.ok_or_else(|| Failure::lasting(anyhow!("this host has no name for the sender address")))?;
        let mail = mail::compose(message, &from, &to).map_err(Failure::lasting)?;

        // -i: a line with a dot alone is a line.
        let mut argv: Vec<String> = ["sendmail", "-i", "-f"].map(str::to_owned).to_vec();
        argv.push(from.to_string());
        argv.push("--".to_owned());
        argv.extend(words);

        let cmd = Cmd { stdin: Some(mail.formatted()), even_when_stopped: true, ..Cmd::new(argv, limit) };
        let output = host.exec.run(&cmd).map_err(Failure::lasting)?;
        let output = output.ok_or_else(|| {
            Failure::lasting(anyhow!("sendmail is not installed: install postfix or another mail system"))
        })?;

        match output.status {
            ToolStatus::Exit(0) => Ok(()),
            ToolStatus::TimedOut => {
                Err(Failure::lasting(anyhow!("sendmail did not accept the mail in time")))
            }
            status => {
                let said = String::from_utf8_lossy(&output.stderr);
                let last = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
                Err(Failure::passing(anyhow!("sendmail: {status}: {}", super::call::cut(last, 200))))
            }
        }
    }
}
