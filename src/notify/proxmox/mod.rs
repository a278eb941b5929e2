//! `proxmox`: the host's own notifications. Its targets and matchers are read and kept to, and we deliver; or the
//! product's own engine is handed the message (`via system`).

mod rules;
mod system;
mod targets;

use std::time::Duration;

use anyhow::anyhow;
use jiff::tz::TimeZone;
use serde::Deserialize;

use self::rules::{Event, MatcherRules};
use super::{Channel, Failure, Manner, Sent, Target, deliver};
use crate::model::facts::Product;
use crate::model::message::Message;
use crate::model::section::{Section, SyntaxError};
use crate::sys::host::Host;
use crate::sys::mail_contacts;

/// Value of the field `type`, by which matchers know us.
const TYPE: &str = "pbx-config";

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Via {
    #[default]
    Direct,
    System,
}

/// `proxmox: ID`.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Options {
    #[serde(default)]
    via: Via,
    /// Product to use on a host with both; PVE's unless given.
    product: Option<Product>,
}

struct Proxmox(Options);

pub(super) fn open(section: &Section) -> Result<Box<dyn Channel>, SyntaxError> {
    Ok(Box::new(Proxmox(section.read()?)))
}

impl Channel for Proxmox {
    fn place(&self) -> String {
        match self.0.via {
            Via::Direct => "the notification targets of this host".to_owned(),
            Via::System => "the notification system of this host".to_owned(),
        }
    }

    fn send(&self, message: &Message, host: &Host, limit: Duration) -> Sent {
        let found = Product::ALL.into_iter().find(|product| host.facts.has(*product));
        let product = self.0.product.or(found).filter(|product| host.facts.has(*product));
        let product = product.ok_or_else(|| {
            let of = self.0.product.map_or("Proxmox", Product::word);
            Failure::lasting(anyhow!("this host has no notification system of {of}"))
        })?;
        match self.0.via {
            Via::Direct => direct(product, message, host, limit),
            Via::System => system::hand_over(product, message, host, limit),
        }
    }
}

fn direct(product: Product, message: &Message, host: &Host, limit: Duration) -> Sent {
    let mut errors = Vec::new();
    let rules = mail_contacts::notifications(host, product)
        .map_err(|error| format!("{error:#}"))
        .and_then(|(public, private)| MatcherRules::read(product, &public, &private));

    // A configuration that cannot be read does not keep the message from root.
    let rules = match rules {
        Ok(rules) => rules,
        Err(error) => {
            errors.push(format!("{error}; root was notified instead"));
            MatcherRules::read(product, "", "").map_err(|error| Failure::lasting(anyhow!(error)))?
        }
    };
    let fields = vec![("type", TYPE), ("hostname", message.details.host.as_str())];
    let event = Event { severity: message.details.severity, fields, at: message.details.at };
    let chosen = rules.choose(&event, &TimeZone::system());

    // A run that nobody wants to hear of is as its administrator wants it; a test is there to be heard.
    if message.is_test() && chosen.targets.is_empty() && chosen.errors.is_empty() && errors.is_empty() {
        let nobody =
            "no matcher of this host sends the type pbx-config with severity info to an enabled target";
        return Err(Failure::lasting(anyhow!(nobody)));
    }
    errors.extend(chosen.errors);
    let mut targets = Vec::new();
    for section in rules.targets.iter().filter(|section| chosen.targets.contains(&section.id)) {
        match targets::open(section, product, host) {
            // Proxmox does not try twice either, and this is one attempt of ours.
            Ok(channel) => targets.push(Target {
                kind: "target",
                name: section.id.clone(),
                manner: Manner { timeout: limit.as_secs().max(1), retries: 0, ..Manner::default() },
                channel,
            }),
            Err(error) => errors.push(format!("target '{}': {error}", section.id)),
        }
    }

    let done = deliver(&targets.iter().collect::<Vec<_>>(), message, host);
    errors.extend(
        done.iter()
            .filter_map(|one| one.error.as_ref().map(|error| format!("target '{}': {error}", one.channel))),
    );

    // Another attempt would tell those again who have heard of it.
    if errors.is_empty() { Ok(()) } else { Err(Failure::lasting(anyhow!(errors.join("; ")))) }
}
