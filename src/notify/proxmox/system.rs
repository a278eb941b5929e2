//! Handover of a message to the product's own engine: `PVE::Notify` in a separate Perl, the spool of PBS. Templates
//! of ours in the product's directory make subject and text of it (share/templates).

use std::time::Duration;

use anyhow::{Result, anyhow};
use serde_json::json;

use super::TYPE;
use crate::model::facts::Product;
use crate::model::message::Message;
use crate::notify::call::{cut, random_uuid};
use crate::notify::{Failure, Sent};
use crate::sys::host::Host;
use crate::sys::mail_contacts;
use crate::sys::process::exec::{Cmd, ToolStatus};

/// Reads all from standard input: nothing of a message stands in the process list.
const PERL: &str = "use strict; use warnings; use JSON::PP; use PVE::Notify; local $/; \
    my $in = decode_json(<STDIN>); \
    my $data = { %{PVE::Notify::common_template_data()}, %{$in->{data}} }; \
    PVE::Notify::notify($in->{severity}, $in->{template}, $data, $in->{fields});";
/// Major versions of PBS whose spool is known; it is internal, and an entry of another form would block it.
const PBS_VERSIONS: [&str; 2] = ["3.", "4."];

pub fn hand_over(product: Product, message: &Message, host: &Host, limit: Duration) -> Sent {
    match product {
        Product::Pve => by_perl(message, host, limit),
        Product::Pbs => by_spool(message, host).map_err(Failure::lasting),
    }
}

fn data(message: &Message) -> serde_json::Value {
    json!({ "subject": message.subject, "text": message.text, "html": message.html })
}

fn fields(message: &Message) -> serde_json::Value {
    json!({ "type": TYPE, "hostname": message.details.host })
}

fn by_perl(message: &Message, host: &Host, limit: Duration) -> Sent {
    let severity = message.details.severity;
    let input =
        json!({ "severity": severity, "template": TYPE, "data": data(message), "fields": fields(message) });
    let cmd = Cmd {
        stdin: Some(input.to_string().into_bytes()),
        even_when_stopped: true,
        ..Cmd::new(["perl", "-e", PERL], limit)
    };
    let output = host.exec.run(&cmd).map_err(Failure::lasting)?;
    let output = output.ok_or_else(|| Failure::lasting(anyhow!("perl is not installed")))?;

    match output.status {
        ToolStatus::Exit(0) => Ok(()),
        ToolStatus::TimedOut => Err(Failure::lasting(anyhow!("PVE::Notify timed out"))),
        status => {
            let said = String::from_utf8_lossy(&output.stderr);
            let words: Vec<&str> = said.split_whitespace().collect();
            Err(Failure::lasting(anyhow!("PVE::Notify: {status}: {}", cut(&words.join(" "), 300))))
        }
    }
}

fn by_spool(message: &Message, host: &Host) -> Result<()> {
    let version = host.facts.products.get(&Product::Pbs).map(String::as_str).unwrap_or_default();
    anyhow::ensure!(
        PBS_VERSIONS.iter().any(|known| version.starts_with(known)),
        "the spool of Proxmox Backup Server {version} is not known; use `via direct` instead"
    );

    let id = random_uuid();
    let details = &message.details;
    let entry = json!({
        "content": { "template": { "template-name": TYPE, "data": data(message) } },
        "metadata": {
            "severity": details.severity,
            "timestamp": details.at.as_second(),
            "additional-fields": fields(message),
        },
        "id": id,
    });
    mail_contacts::spool(host, &id, entry.to_string().as_bytes())
}
