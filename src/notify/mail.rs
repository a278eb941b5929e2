//! Mail made of a message: plain text and a page, in one. `sendmail` and `smtp` carry it.

use std::time::SystemTime;

use anyhow::{Context, Result};
use lettre::message::header::{HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart};
use lettre::{Address, Message as Mail};

use crate::model::message::Message;
use crate::model::section::{Section, SyntaxError};

/// Author that mail programs show.
const AUTHOR: &str = "pbx-config";

/// The mail addresses under a key.
pub fn addresses(section: &Section, key: &str, texts: &[String]) -> Result<Vec<Address>, SyntaxError> {
    texts.iter().map(|text| address(section, key, text)).collect()
}

pub fn address(section: &Section, key: &str, text: &str) -> Result<Address, SyntaxError> {
    // A leading dash would be an option to whatever gets it as a word.
    let parsed = text.parse::<Address>().ok().filter(|_| !text.starts_with('-'));
    parsed.ok_or_else(|| {
        let hint = if section.kind == "sendmail" && !text.contains('@') {
            "for example admin@example.org; without this line it is root of this host"
        } else {
            "for example admin@example.org, without a name, one per line"
        };
        section.error_at(key, &format!("{key}: this is not a mail address")).hinted(hint)
    })
}

pub fn compose(message: &Message, from: &Address, to: &[Address]) -> Result<Mail> {
    let author = format!("{AUTHOR} on {}", message.details.host);
    let mut mail = Mail::builder()
        .from(Mailbox::new(Some(author), from.clone()))
        .subject(message.subject.as_str())
        .date(SystemTime::from(message.details.at))
        .message_id(None);
    for address in to {
        mail = mail.to(Mailbox::new(None, address.clone()));
    }

    // Nobody's holiday answers it.
    for (name, value) in
        [("Auto-Submitted", "auto-generated"), ("X-Pbx-Config-Outcome", &message.details.outcome.to_string())]
    {
        let name = HeaderName::new_from_ascii(name.to_owned()).context("a header")?;
        mail = mail.raw_header(HeaderValue::new(name, value.to_owned()));
    }

    let parts = MultiPart::alternative_plain_html(message.text.clone(), message.html.clone());
    mail.multipart(parts).context("cannot build the mail")
}
