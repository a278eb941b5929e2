//! The programs that move snapshots elsewhere, run within a limit. What they say on errors is cut to its core, and
//! no secret of the section is ever in it. Not here: what the programs are asked.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::de::DeserializeOwned;

use crate::model::problem::Fault;
use crate::model::secret::Secret;
use crate::model::section::{Section, SyntaxError};
use crate::sys::hide::hide;
use crate::sys::process::exec::{Cmd, Exec, ProcessOutput, ToolStatus};
use crate::sys::process::signals::check_stopped;

/// The most of a program's error message that is passed on.
const SAID_MAX_CHARS: usize = 400;
/// The most output of a program, unless it is a listing.
pub(super) const SAID_MAX_BYTES: usize = 1 << 20;
/// A listing of a thousand hosts with a hundred snapshots each.
pub(super) const LISTING_MAX_BYTES: usize = 16 << 20;
/// A transfer that is slower is given up: the limit of a transfer grows with its bytes.
pub(super) const SLOWEST_BYTES_PER_SECOND: u64 = 16 << 10;
/// Shorter words would tear holes into every message.
const SECRET_MIN_BYTES: usize = 4;

/// A program on behalf of one store.
pub(super) struct Tool {
    pub exec: Arc<dyn Exec>,
    pub program: &'static str,
    /// The hint when the program is not there.
    pub missing: &'static str,
    /// The name of the store, for messages.
    pub store: String,
    /// The environment that no process list may show.
    pub env: Vec<(String, Secret)>,
    /// The part of the environment that is not secret.
    pub plain_env: Vec<(String, String)>,
    /// Finds the hint for what the program said on standard error, in small letters.
    pub hint: fn(&str) -> Option<&'static str>,
}

impl Tool {
    /// Parses an answer. `what` names it in errors, as in "the list from rclone". Errors: it was longer than the limit.
    pub fn json<T: DeserializeOwned>(&self, output: &ProcessOutput, what: &str) -> Result<T> {
        ensure!(!output.truncated, "store '{}': {what} is longer than that of any store", self.store);
        serde_json::from_slice(&output.stdout)
            .with_context(|| format!("store '{}': {what} is not JSON", self.store))
    }

    /// Runs the program to its end. Errors: it is not there, it was stopped, it did not end within `limit`.
    /// Its exit status is for the caller to judge.
    pub fn run(&self, args: &[String], limit: Duration, max_bytes: usize) -> Result<ProcessOutput> {
        check_stopped()?;
        let mut cmd = Cmd::new([self.program], limit);
        cmd.argv.extend_from_slice(args);
        cmd.max_bytes = max_bytes;
        cmd.env.clone_from(&self.plain_env);
        cmd.env.extend(self.env.iter().map(|(name, value)| (name.clone(), value.reveal().to_owned())));

        let ran = self.exec.run(&cmd).with_context(|| format!("store '{}'", self.store))?;
        let Some(output) = ran else {
            let message = format!("store '{}': {} is not installed on this host", self.store, self.program);
            return Err(Fault::failed(message).hint(self.missing).into());
        };
        check_stopped()?;
        if output.status == ToolStatus::TimedOut {
            let what = args.first().map(String::as_str).unwrap_or_default();
            let message = format!(
                "store '{}': {} {what} did not finish within {} s",
                self.store,
                self.program,
                limit.as_secs()
            );
            let fault = Fault::failed(message);
            return Err(fault.hint("is the server up and reachable? `timeout` sets the limit").into());
        }

        anyhow::ensure!(
            !output.truncated || output.status != ToolStatus::Exit(0),
            "store '{}': {} printed more than {} MiB",
            self.store,
            self.program,
            max_bytes >> 20
        );
        Ok(output)
    }

    /// Runs a command that must succeed and returns its output, at most `SAID_MAX_BYTES`. `what` completes "cannot".
    pub fn done(&self, what: &str, args: &[String], limit: Duration) -> Result<Vec<u8>> {
        let output = self.run(args, limit, SAID_MAX_BYTES)?;
        match output.status {
            ToolStatus::Exit(0) => Ok(output.stdout),
            _ => Err(self.failed(what, &output)),
        }
    }

    /// The error of a program that failed, with what it said.
    pub fn failed(&self, what: &str, output: &ProcessOutput) -> anyhow::Error {
        let text = String::from_utf8_lossy(&output.stderr);
        let said = self.without_secrets(without_stamp(last_line(&text)));
        let said: String = said.chars().filter(|c| !c.is_control()).take(SAID_MAX_CHARS).collect();
        let said = if said.is_empty() { output.status.to_string() } else { said };
        let mut fault = Fault::failed(format!("store '{}': cannot {what}: {said}", self.store));
        fault.hint = (self.hint)(&text.to_lowercase()).map(str::to_owned);
        fault.into()
    }

    fn without_secrets(&self, text: &str) -> String {
        let secrets = self.env.iter().map(|(_, value)| value.reveal());
        let long: Vec<&str> = secrets.filter(|secret| secret.len() >= SECRET_MIN_BYTES).collect();
        hide(text, &long)
    }
}

/// Returns the last line of a program's messages: it tells why the program ended.
pub(super) fn last_line(text: &str) -> &str {
    text.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default()
}

/// `2026/11/24 14:02:38 ERROR : what` says only `what` to people.
fn without_stamp(line: &str) -> &str {
    let is_stamp =
        |word: &str| !word.is_empty() && word.chars().all(|c| c.is_ascii_digit() || "/:.".contains(c));
    let mut rest = line;
    while let Some((word, after)) = rest.split_once(' ')
        && is_stamp(word)
    {
        rest = after.trim_start();
    }
    let level = ["ERROR : ", "ERROR: ", "Error: ", "NOTICE: ", "CRITICAL: "];
    level.iter().find_map(|level| rest.strip_prefix(level)).unwrap_or(rest).trim_start_matches(": ")
}

/// Returns the time limit of a transfer: `base`, and `bytes` at the slowest rate for each try.
pub(super) fn transfer_limit(base: Duration, bytes: u64, slowest: u64, tries: u64) -> Duration {
    base.saturating_add(Duration::from_secs((bytes / slowest.max(1)).saturating_mul(tries.max(1))))
}

/// A section's error as the fault that ends a command.
pub(super) fn usage(error: SyntaxError) -> anyhow::Error {
    Fault::from(error).into()
}

/// The public keys of a section, and the secret ones with their values.
pub(super) fn split_secrets(section: &Section) -> (Section, Vec<(String, Secret)>) {
    let (private, public) = section.entries.iter().cloned().partition(|entry| entry.private);
    let private: Vec<crate::model::section::SectionEntry> = private;
    let secrets = private.into_iter().map(|entry| (entry.key, Secret::from(entry.value))).collect();
    (Section { entries: public, ..section.clone() }, secrets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_a_log_is_cut_to_what_it_says() {
        assert_eq!(without_stamp("2026/11/24 14:02:38 ERROR : : error listing"), "error listing");
        assert_eq!(without_stamp("2026/11/24 14:02:38 Failed to moveto: no"), "Failed to moveto: no");
        assert_eq!(without_stamp("Error: permission check failed"), "permission check failed");
        assert_eq!(without_stamp("10 is a number"), "is a number");
    }

    #[test]
    fn the_limit_of_a_transfer_grows_with_its_bytes() {
        let base = Duration::from_secs(300);
        assert_eq!(transfer_limit(base, 0, SLOWEST_BYTES_PER_SECOND, 3), base);
        assert_eq!(transfer_limit(base, 160 << 10, SLOWEST_BYTES_PER_SECOND, 3).as_secs(), 330);
        assert!(transfer_limit(base, u64::MAX, 0, u64::MAX) > base);
    }
}
