//! Notification of a run: opens the channels, makes the message of a Report, delivers it. What goes wrong here is a
//! problem of the run, never its end.

use std::cell::RefCell;
use std::collections::VecDeque;

use anyhow::Result;

use crate::config::Config;
use crate::model::facts::Facts;
use crate::model::message::Message;
use crate::model::problem::{Fault, FaultKind, Outcome, Problem};
use crate::model::report::Report;
use crate::model::section::{self, Section};
use crate::model::snapshot::Trigger;
use crate::notify::{self, DeliveryReport, Target};
use crate::plan::message;
use crate::sys::error_hint;
use crate::sys::host::Host;
use crate::sys::mask::mask;
use crate::sys::process::signals::check_stopped;
use crate::sys::process::threads;

/// The number of lines of a run that are kept for its message.
const LINES_MAX: usize = 500;

/// The channel used where none is configured: the host's own targets get warnings and errors.
const DEFAULT: &str = "proxmox: system\n\twhen warning\n";

/// Returns the channels to notify of a run: those configured, or the default one.
pub fn sections(host: &Host, configured: &[Section]) -> Vec<Section> {
    if configured.is_empty() && is_told_by_itself(host.is_live(), &host.facts) {
        return section::parse("(default)", DEFAULT).unwrap_or_default();
    }
    configured.to_vec()
}

/// Only the running system tells its own targets without being asked to.
fn is_told_by_itself(is_live: bool, facts: &Facts) -> bool {
    is_live && !facts.products.is_empty()
}

/// The channels of a run.
pub struct Channels {
    pub targets: Vec<Target>,
    /// Sections that cannot be used, and why.
    pub problems: Vec<Problem>,
}

impl Channels {
    /// A section that is not complete costs its channel, not the others'. A system that is only mounted here
    /// tells nobody: whoever saves it by hand is told on the spot.
    /// None: a configuration that cannot be read.
    pub fn open(host: &Host, config: Option<&Config>) -> Self {
        let mut channels = Self { targets: Vec::new(), problems: Vec::new() };
        let sections = sections(host, config.map_or(&[], |config| &config.channels));
        for section in sections.iter().filter(|_| host.exec.is_of_host()) {
            match notify::open(section) {
                Ok(target) => channels.targets.push(target),
                Err(error) => channels.problems.push(unusable(section, &error)),
            }
        }
        channels
    }

    /// Runs a task, and sends at the same time that it begins.
    pub fn around<T>(&self, host: &Host, run: impl FnOnce() -> T) -> (T, Vec<Problem>) {
        let all: Vec<&Target> = self.targets.iter().collect();
        std::thread::scope(|scope| {
            let begun = threads::start(scope, || notify::begin(&all, host));
            let done = run();
            (done, begun.join().unwrap_or_default().iter().filter_map(problem).collect())
        })
    }

    /// Tells of a backup, however it ended.
    pub fn tell_backup(
        &self,
        host: &Host,
        report: &mut Report,
        lines: &Lines,
        done: &Result<Report>,
        trigger: Trigger,
    ) {
        let fault = done.as_ref().err().and_then(|error| error.downcast_ref::<Fault>());
        // The run that holds the lock tells of itself, and who stops a run by hand knows of it.
        let is = |kind| fault.is_some_and(|fault: &Fault| fault.kind == kind);
        // So does who has just typed something wrong.
        let by_hand = trigger == Trigger::Manual && (check_stopped().is_err() || is(FaultKind::Usage));
        if is(FaultKind::Locked) || by_hand {
            return;
        }
        self.tell(host, report, lines);
    }

    /// Tells those that want to know. What went wrong stands in the report afterwards.
    pub fn tell(&self, host: &Host, report: &mut Report, lines: &Lines) {
        report.problems.extend(self.problems.iter().cloned());
        let settle = |report: &mut Report| report.outcome = report.outcome.max(Outcome::of(&report.problems));
        settle(report);
        let wanting: Vec<&Target> =
            self.targets.iter().filter(|target| target.manner.when.wants(report.outcome)).collect();
        let message = message::of(report, &host.facts, &lines.text(), host.now);
        let done = notify::deliver(&wanting, &message, host);
        report.problems.extend(done.iter().filter_map(problem));
        settle(report);
    }

    /// Tries these, whatever outcome they wait for.
    pub fn test(targets: &[&Target], host: &Host) -> Vec<DeliveryReport> {
        let report = Report::blank(Message::TEST, &host.facts, 0.0);
        let lines = Lines::default();
        lines.add("this is a test of pbx-config");
        let message = message::of(&report, &host.facts, &lines.text(), host.now);
        notify::deliver(targets, &message, host)
    }
}

fn unusable(section: &Section, error: &anyhow::Error) -> Problem {
    let what = format!("{} '{}' was not notified: {error:#}", section.kind, section.id);
    let hint = error_hint::own(error);
    Problem::warning(what).hint(hint.unwrap_or_else(|| "see `pbx-config config check`".to_owned()))
}

fn problem(done: &DeliveryReport) -> Option<Problem> {
    let error = done.error.as_ref()?;
    let channel = format!("{} '{}'", done.kind, done.channel);
    if done.by_fallback {
        return Some(Problem::notice(format!("{channel}: {error}; its fallback was used")));
    }
    let hint = format!("test it with `pbx-config notify test {}`", done.channel);
    Some(Problem::warning(format!("{channel} was not notified: {error}")).hint(hint))
}

/// The report of a verification that found something.
pub fn verification(host: &Host, problems: Vec<Problem>) -> Report {
    let outcome = Outcome::Failed;
    Report { outcome, problems, ..Report::blank("verify", &host.facts, 0.0) }
}

/// The last lines that a run logged.
#[derive(Default)]
pub struct Lines(RefCell<VecDeque<String>>);

impl Lines {
    pub fn add(&self, line: &str) {
        let mut lines = self.0.borrow_mut();
        if lines.len() == LINES_MAX {
            lines.pop_front();
        }
        lines.push_back(mask(line).into_owned());
    }

    fn text(&self) -> String {
        self.0.borrow().iter().fold(String::new(), |text, line| text + line + "\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::facts::Product;

    #[test]
    fn only_a_running_proxmox_host_tells_somebody_unasked() {
        let facts = |products: &[Product]| Facts {
            products: products.iter().map(|product| (*product, "9.1".to_owned())).collect(),
            ..Facts::default()
        };
        assert!(is_told_by_itself(true, &facts(&[Product::Pve])));
        assert!(!is_told_by_itself(false, &facts(&[Product::Pbs])));
        assert!(!is_told_by_itself(true, &facts(&[])));
        let sections = section::parse("(default)", DEFAULT).unwrap_or_default();
        let target = sections.first().and_then(|section| notify::open(section).ok());
        assert!(target.is_some_and(|target| target.manner.when == notify::When::Warning));
    }
}
