//! `notify`: the channels that are told, and a test of them.

use anyhow::Result;
use clap::Subcommand;
use serde::Serialize;

use super::{App, render};
use crate::model::problem::{Exit, Fault, FaultKind, Outcome, Problem};
use crate::notify::{DeliveryReport, Target, When};
use crate::task::runs::notify::{self, Channels, Lines};

pub(super) const EXAMPLES: &str = "EXAMPLES:
  pbx-config notify list            list who is notified, and when
  pbx-config notify test            send a test message to all of them
  pbx-config notify test phone";

#[derive(Debug, Subcommand)]
pub enum Notify {
    /// List the channels: where they send, and from which result on
    List,
    /// Send a test message now, whatever result a channel waits for
    Test {
        /// Restrict to these channels, by name
        #[arg(value_name = "NAME")]
        names: Vec<String>,
    },
}

/// A channel as `notify list` shows it.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Row<'a> {
    kind: &'a str,
    channel: &'a str,
    when: When,
    timeout: u64,
    retries: u32,
    place: String,
}

impl<'a> Row<'a> {
    fn of(target: &'a Target) -> Self {
        let Target { kind, name, manner, channel } = target;
        let (when, timeout, retries) = (manner.when, manner.timeout, manner.retries);
        Self { kind, channel: name, when, timeout, retries, place: channel.place() }
    }
}

impl App<'_> {
    pub(super) fn notify(&mut self, args: Notify) -> Result<Exit> {
        let config = self.config()?;
        let channels = Channels::open(&self.host, Some(&config));
        match args {
            Notify::List => self.channel_list(&channels, config.channels.len()),
            Notify::Test { names } => self.channel_test(&channels, &names),
        }
    }

    fn channel_list(&mut self, channels: &Channels, configured: usize) -> Result<Exit> {
        let here = self.host.exec.is_of_host();
        let rows: Vec<Row> = channels.targets.iter().map(Row::of).collect();
        let value = serde_json::json!({ "channels": rows, "problems": channels.problems });

        self.print(&value, |_| {
            let cells = |row: &Row| {
                let when = format!("{:?}", row.when).to_lowercase();
                vec![row.channel.to_owned(), row.kind.to_owned(), when, row.place.clone()]
            };
            match &rows[..] {
                [] if !here && configured > 0 => format!(
                    "no notification is sent from here: this system is only mounted; its own runs notify {configured} channels\n"
                ),
                [] if channels.problems.is_empty() => "no notification is sent: no channel is configured\n".to_owned(),
                [] => "no notification is sent: no channel can be used\n".to_owned(),
                rows => {
                    let cells: Vec<_> = rows.iter().map(cells).collect();
                    render::table(&["CHANNEL", "KIND", "WHEN", "WHERE"], &cells)
                }
            }
        })?;
        self.tell(&channels.problems);
        Ok(Outcome::of(&channels.problems).into())
    }

    fn channel_test(&mut self, channels: &Channels, names: &[String]) -> Result<Exit> {
        let all = || channels.targets.iter();
        for name in names {
            if !all().any(|target| target.name == *name) {
                return Err(unknown(channels, name).into());
            }
        }

        let chosen: Vec<&Target> =
            all().filter(|target| names.is_empty() || names.contains(&target.name)).collect();
        if chosen.is_empty() && channels.problems.is_empty() {
            let fault = Fault::new(FaultKind::NotFound, "there is no channel to test");
            return Err(fault.hint("pbx-config.cfg(5) says how to configure one").into());
        }

        let done = Channels::test(&chosen, &self.host);
        self.print(&done, |done| done.iter().map(line).collect())?;
        if names.is_empty() {
            self.tell(&channels.problems);
        }

        let bad = done.iter().any(|one| !one.arrived());
        Ok(if bad { Exit::Failed } else { Outcome::of(&channels.problems).into() })
    }

    /// Tells of a verification in which something was wrong.
    pub(super) fn tell_of_damage(&self, problems: &[Problem]) -> Result<()> {
        let mut report = notify::verification(&self.host, problems.to_vec());
        Channels::open(&self.host, Some(&self.config()?)).tell(&self.host, &mut report, &Lines::default());
        self.tell(&report.problems[problems.len()..]);
        Ok(())
    }
}

fn unknown(channels: &Channels, name: &str) -> Fault {
    let known: Vec<&str> = channels.targets.iter().map(|target| target.name.as_str()).collect();
    let fault = Fault::new(FaultKind::NotFound, format!("channel '{name}' does not exist"));
    match &channels.problems[..] {
        [] => fault.hint(format!("the channels are: {}", known.join(", "))),
        problems => fault.hint(problems.iter().map(|one| one.what.as_str()).collect::<Vec<_>>().join("; ")),
    }
}

fn line(done: &DeliveryReport) -> String {
    let head = format!("{} '{}'", done.kind, done.channel);
    let place = render::one_line(&done.place);
    match &done.error {
        None => format!("ok      {head}: {place}, {:.1} s\n", done.took),
        Some(error) if done.by_fallback => {
            format!("ok      {head}: by its fallback, because {}\n", render::one_line(error))
        }
        Some(error) => {
            let tries = if done.attempts == 1 { "" } else { &format!(" ({} attempts)", done.attempts) };
            format!("FAILED  {head}: {}{tries}\n", render::one_line(error))
        }
    }
}
