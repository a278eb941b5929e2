//! Channels that a run is told to. A kind of channel is one file here plus one line in `KINDS`. They are told side by
//! side, each within its own time: none waits for another, none can hold up or fail the run.
//! The message is made elsewhere (`plan::message`).

mod call;
mod gotify;
mod healthchecks;
mod mail;
mod ntfy;
mod proxmox;
mod relay;
mod sendmail;
mod smtp;
mod telegram;
mod template;
mod webhook;

use std::time::{Duration, Instant};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::model::index::one_line;
use crate::model::message::Message;
use crate::model::problem::{Fault, Outcome};
use crate::model::section::{Section, SyntaxError};
use crate::sys::host::Host;
use crate::sys::process::signals::check_stopped;
use crate::sys::process::threads;

/// Before the first retry; each further one waits twice as long.
const BACKOFF: Duration = Duration::from_secs(1);
/// However long a server asks us to wait, a run does not.
const WAIT_MAX: Duration = Duration::from_secs(15);
/// All attempts of a channel with their pauses.
const CHANNEL_MAX: Duration = Duration::from_secs(120);
const TIMEOUT_MAX_SECONDS: u64 = 60;
const RETRIES_MAX: u32 = 5;

/// A way to tell people or machines. It tries once; whether it tries again is decided here.
pub trait Channel: Sync {
    /// Returns the place it goes to, in a line without secrets.
    fn place(&self) -> String;

    /// Tells of a run that has ended. Returns within `limit` and a short grace.
    fn send(&self, message: &Message, host: &Host, limit: Duration) -> Sent;

    /// A run begins, which only a channel that waits for its end needs to know.
    fn begin(&self, _: &Host, _: Duration) -> Sent {
        Ok(())
    }

    /// Tried once, at once, where this channel has failed for good.
    fn fallback(&self) -> Option<&dyn Channel> {
        None
    }
}

pub type Sent = Result<(), Failure>;

/// An attempt that told nobody.
#[derive(Debug)]
pub struct Failure {
    /// Never holds a secret.
    pub error: anyhow::Error,
    /// Some: another attempt may do, not before this time.
    pub again: Option<Duration>,
}

impl Failure {
    /// Something that may be otherwise in a moment.
    pub fn passing(error: impl Into<anyhow::Error>) -> Self {
        Self { error: error.into(), again: Some(Duration::ZERO) }
    }

    /// Something that the next attempt would meet too.
    pub fn lasting(error: impl Into<anyhow::Error>) -> Self {
        Self { error: error.into(), again: None }
    }
}

pub struct ChannelKind {
    /// The word before the colon in a section's header.
    pub name: &'static str,
    pub help: &'static str,
    /// Keys that must stand in secrets.cfg.
    pub secrets: fn(&Section) -> &'static [&'static str],
    /// Reads the section's keys. Touches nothing outside.
    pub open: fn(&Section) -> Result<Box<dyn Channel>, SyntaxError>,
}

pub const KINDS: &[ChannelKind] = &[
    ChannelKind {
        name: "sendmail",
        help: "mail through this host's own mail system",
        secrets: |_| &[],
        open: sendmail::open,
    },
    ChannelKind {
        name: "smtp",
        help: "mail through a mail server",
        secrets: |_| &["password"],
        open: smtp::open,
    },
    ChannelKind {
        name: "proxmox",
        help: "the notification targets of this host",
        secrets: |_| &[],
        open: proxmox::open,
    },
    ChannelKind {
        name: "relay",
        help: "an HTTP server that sends the mail",
        secrets: |_| relay::SECRETS,
        open: relay::open,
    },
    ChannelKind { name: "gotify", help: "a Gotify server", secrets: |_| &["token"], open: gotify::open },
    ChannelKind { name: "ntfy", help: "a topic of ntfy", secrets: |_| ntfy::SECRETS, open: ntfy::open },
    ChannelKind {
        name: "telegram",
        help: "a Telegram chat",
        secrets: |_| telegram::SECRETS,
        open: telegram::open,
    },
    ChannelKind {
        name: "webhook",
        help: "Discord, Slack, Teams, Pushover or any other HTTP server",
        secrets: webhook::secrets,
        open: webhook::open,
    },
    ChannelKind {
        name: "healthchecks",
        help: "a monitor that waits for us",
        secrets: |_| healthchecks::SECRETS,
        open: healthchecks::open,
    },
];

pub fn kind_names() -> Vec<&'static str> {
    KINDS.iter().map(|kind| kind.name).collect()
}

/// Lowest outcome that a channel is told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum When {
    #[default]
    Always,
    Warning,
    Failure,
}

impl When {
    pub fn wants(self, outcome: Outcome) -> bool {
        match self {
            Self::Always => true,
            Self::Warning => outcome >= Outcome::Warned,
            Self::Failure => outcome == Outcome::Failed,
        }
    }
}

/// The keys of every channel.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Manner {
    pub when: When,
    /// Seconds that one attempt may take.
    pub timeout: u64,
    /// Further attempts after the first.
    pub retries: u32,
}

impl Manner {
    const KEYS: [&'static str; 3] = ["when", "timeout", "retries"];
}

impl Default for Manner {
    fn default() -> Self {
        Self { when: When::Always, timeout: 15, retries: 2 }
    }
}

/// A channel as it is configured.
pub struct Target {
    pub kind: &'static str,
    /// The id of its section.
    pub name: String,
    pub manner: Manner,
    pub channel: Box<dyn Channel>,
}

/// Opens the channel of a section. Errors: `Usage`, with file and line.
pub fn open(section: &Section) -> Result<Target> {
    let Some(kind) = KINDS.iter().find(|kind| kind.name == section.kind) else {
        return Err(Fault::usage(format!("{}: unknown kind of channel", section.kind)).into());
    };
    read(kind, section).map_err(|error| Fault::from(error).into())
}

fn read(kind: &ChannelKind, section: &Section) -> Result<Target, SyntaxError> {
    let secrets = (kind.secrets)(section);
    section.refuse_public(secrets)?;

    let (manner, rest) = section.split(&Manner::KEYS);
    let manner: Manner = manner.read()?;
    if !(1..=TIMEOUT_MAX_SECONDS).contains(&manner.timeout) {
        let error =
            section.error_at("timeout", &format!("timeout: must be from 1 to {TIMEOUT_MAX_SECONDS} seconds"));
        return Err(error);
    }
    if manner.retries > RETRIES_MAX {
        return Err(section.error_at("retries", &format!("retries: at most {RETRIES_MAX}")));
    }

    let channel = (kind.open)(&rest).map_err(|error| {
        let lacking = secrets.iter().find(|key| error.message.ends_with(&format!("'{key}' is missing")));
        match lacking {
            // Never into the file that others may read, which is what any other key would be told.
            Some(key) => {
                error.hinted(format!("put `{key}` under '{}: {}' in secrets.cfg", section.kind, section.id))
            }
            None => error,
        }
    })?;
    Ok(Target { kind: kind.name, name: section.id.clone(), manner, channel })
}

/// Outcome of telling a channel.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct DeliveryReport {
    pub kind: &'static str,
    pub channel: String,
    pub place: String,
    pub attempts: u32,
    /// None: it was told.
    pub error: Option<String>,
    /// The channel failed with `error`, and its fallback was told.
    pub by_fallback: bool,
    /// Seconds.
    pub took: f64,
}

impl DeliveryReport {
    pub fn arrived(&self) -> bool {
        self.error.is_none() || self.by_fallback
    }
}

/// Tells every target side by side and waits for the slowest. The caller has chosen them.
pub fn deliver(targets: &[&Target], message: &Message, host: &Host) -> Vec<DeliveryReport> {
    side_by_side(targets, |target| {
        let attempt = |limit| target.channel.send(message, host, limit);
        let mut done = persist(target, &attempt);
        if let (Some(_), Some(fallback)) = (&done.error, target.channel.fallback()) {
            let limit = Duration::from_secs(target.manner.timeout);
            match fallback.send(message, host, limit) {
                Ok(()) => done.by_fallback = true,
                Err(failure) => {
                    let first = done.error.take().unwrap_or_default();
                    let second = one_line(&format!("{:#}", failure.error));
                    done.error = Some(format!("{first}; then {}: {second}", fallback.place()));
                }
            }
        }
        done
    })
}

/// Tells every target that a run begins.
pub fn begin(targets: &[&Target], host: &Host) -> Vec<DeliveryReport> {
    side_by_side(targets, |target| persist(target, &|limit| target.channel.begin(host, limit)))
}

fn side_by_side(targets: &[&Target], work: impl Fn(&Target) -> DeliveryReport + Sync) -> Vec<DeliveryReport> {
    let work = &work;
    std::thread::scope(|scope| {
        let started: Vec<_> =
            targets.iter().map(|target| (*target, threads::start(scope, move || work(target)))).collect();
        let done = |(target, thread): (&Target, threads::Started<DeliveryReport>)| {
            thread.join().unwrap_or_else(|| DeliveryReport {
                error: Some("it crashed; please report this".to_owned()),
                ..DeliveryReport::new(target)
            })
        };
        started.into_iter().map(done).collect()
    })
}

impl DeliveryReport {
    fn new(target: &Target) -> Self {
        Self {
            kind: target.kind,
            channel: target.name.clone(),
            place: target.channel.place(),
            attempts: 0,
            error: None,
            by_fallback: false,
            took: 0.0,
        }
    }
}

/// Tries until it is told, or told not to, or out of time.
fn persist(target: &Target, attempt: &dyn Fn(Duration) -> Sent) -> DeliveryReport {
    let start = Instant::now();
    let mut done = DeliveryReport::new(target);
    let mut pause = BACKOFF;

    loop {
        let left = CHANNEL_MAX.saturating_sub(start.elapsed());
        done.attempts += 1;
        let sent = attempt(left.min(Duration::from_secs(target.manner.timeout)));
        done.took = start.elapsed().as_secs_f64();
        let Err(failure) = sent else {
            done.error = None;
            return done;
        };
        log::debug!("{} '{}': {:#}", target.kind, target.name, failure.error);
        // A server may answer anything.
        done.error = Some(one_line(&format!("{:#}", failure.error)));
        let Some(asked) = failure.again.filter(|_| done.attempts <= target.manner.retries) else {
            return done;
        };
        let wait = pause.max(asked);
        if wait > WAIT_MAX || start.elapsed() + wait >= CHANNEL_MAX || !rest(wait) {
            return done;
        }
        pause *= 2;
    }
}

/// False when the program is asked to end.
fn rest(time: Duration) -> bool {
    const STEP: Duration = Duration::from_millis(20);
    let start = Instant::now();
    while start.elapsed() < time {
        if check_stopped().is_err() {
            return false;
        }
        std::thread::sleep(STEP.min(time));
    }
    check_stopped().is_ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::model::section::parse;

    fn target(text: &str) -> Result<Target> {
        open(&parse("pbx.cfg", text).unwrap()[0])
    }

    fn said(text: &str) -> String {
        format!("{:#}", target(text).err().unwrap())
    }

    #[test]
    fn every_mistake_in_a_section_has_its_line() {
        assert_eq!(
            said("gotify: a\n\turl https://x\n\ttoken b"),
            "pbx.cfg:3: gotify 'a': a secret ('token') must not be in a file that others can read"
        );
        assert_eq!(
            said("sendmail: a\n\twhen never"),
            "pbx.cfg:2: sendmail 'a': when: 'never' is not one of: always, warning, failure"
        );
        assert_eq!(
            said("sendmail: a\n\ttimeout 0"),
            "pbx.cfg:2: sendmail 'a': timeout: must be from 1 to 60 seconds"
        );
        assert_eq!(said("sendmail: a\n\tretries 6"), "pbx.cfg:2: sendmail 'a': retries: at most 5");
        assert_eq!(said("sendmail: a\n\tto x@y\n\tot x"), "pbx.cfg:3: sendmail 'a': unknown key 'ot'");
        assert_eq!(said("sendmail: a\n\tto -x@y"), "pbx.cfg:2: sendmail 'a': to: this is not a mail address");
        assert_eq!(said("smtp: a\n\tserver x\n\tto a@b"), "pbx.cfg:1: smtp 'a': 'from' is missing");
    }

    #[test]
    fn a_secret_that_is_missing_is_asked_for_where_it_belongs() {
        for (text, key) in [
            ("gotify: a\n\turl https://x\n", "token"),
            ("relay: a\n\turl https://x\n\tto a@b\n", "token"),
            ("healthchecks: a\n", "url"),
            ("telegram: a\n\tchat 1\n", "token"),
            ("telegram: a\n\tgateway https://x\n\tserver-id 1\n", "secret"),
            ("webhook: a\n\tformat slack\n", "url"),
            ("webhook: a\n\tformat pushover\n", "token"),
            ("webhook: a\n\turl https://x\n\tauth bearer\n", "secret"),
            ("smtp: a\n\tserver x\n\tfrom a@b\n\tto a@b\n\tusername u\n", "password"),
        ] {
            let error = target(text).err().unwrap();
            let hint = error.downcast_ref::<Fault>().unwrap().hint.clone().unwrap();
            let (kind, _) = text.split_once(':').unwrap();
            assert_eq!(hint, format!("put `{key}` under '{kind}: a' in secrets.cfg"), "{text}");
        }
    }

    #[test]
    fn a_channel_is_told_from_its_outcome_on() {
        let all = [Outcome::Ok, Outcome::Warned, Outcome::Failed];
        for (when, told) in [
            (When::Always, [true, true, true]),
            (When::Warning, [false, true, true]),
            (When::Failure, [false, false, true]),
        ] {
            assert_eq!(all.map(|outcome| when.wants(outcome)), told);
        }
    }

    #[test]
    fn only_what_may_pass_is_tried_again_and_not_for_ever() {
        let target = target("sendmail: a\n\tretries 1\n\tto a@b").unwrap();
        let tries = AtomicU32::new(0);
        let count = |failure: fn() -> Failure| {
            tries.store(0, Ordering::Relaxed);
            let done = persist(&target, &|_| {
                tries.fetch_add(1, Ordering::Relaxed);
                Err(failure())
            });
            assert_eq!((done.attempts, done.arrived()), (tries.load(Ordering::Relaxed), false));
            done.attempts
        };
        assert_eq!(count(|| Failure::lasting(anyhow::anyhow!("no"))), 1);
        assert_eq!(count(|| Failure::passing(anyhow::anyhow!("busy"))), 2);
        // A server that wants an hour does not get it.
        assert_eq!(
            count(|| Failure { error: anyhow::anyhow!("x"), again: Some(Duration::from_secs(3600)) }),
            1
        );
    }
}
