//! The state that commands tell: run beside the collecting, several at a time, each and all bounded in time.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::catalog::{Item, Source};
use crate::model::index::Output;
use crate::model::report::Problem;
use crate::sys::exec::{Cmd, Exec, Status};
use crate::sys::host::Host;
use crate::sys::lock::check_stopped;
use crate::sys::log::mask;

/// One command.
const COMMAND_LIMIT: Duration = Duration::from_secs(20);
/// All commands together.
const STATE_LIMIT: Duration = Duration::from_secs(120);
const COMMANDS_AT_ONCE: usize = 4;
const OUTPUT_MAX_BYTES: usize = 16 << 20;
const STDERR_KEPT_BYTES: usize = 2048;

/// The commands of the rows, still without their answers.
pub fn outputs_of(items: &[&'static Item], host: &Host) -> Vec<Output> {
    let with_node = |word: &&str| word.replace("{node}", &host.facts.node);
    items
        .iter()
        .filter_map(|item| match item.source {
            Source::Output { argv, name } => Some(Output {
                item: item.id.to_owned(),
                name: name.to_owned(),
                argv: argv.iter().map(with_node).collect(),
                status: String::new(),
                stderr: String::new(),
            }),
            _ => None,
        })
        .collect()
}

/// Commands run beside the collecting, several at a time.
pub struct Commands {
    todo: Vec<Output>,
    said: Mutex<Vec<Option<Result<crate::sys::exec::Output>>>>,
    next: AtomicUsize,
    stop: AtomicBool,
    deadline: Instant,
}

impl Commands {
    pub fn new(todo: Vec<Output>) -> Self {
        let said = Mutex::new(todo.iter().map(|_| None).collect());
        Self {
            todo,
            said,
            next: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            deadline: Instant::now() + STATE_LIMIT,
        }
    }

    pub fn work(&self, exec: &dyn Exec) {
        while !self.stop.load(Ordering::Relaxed) && check_stopped().is_ok() {
            let n = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(output) = self.todo.get(n) else { return };
            let left = self.deadline.saturating_duration_since(Instant::now());
            let said = if left.is_zero() {
                Some(Err(anyhow::anyhow!("not run: all commands together took {} s", STATE_LIMIT.as_secs())))
            } else {
                let cmd = Cmd {
                    argv: output.argv.clone(),
                    limit: COMMAND_LIMIT.min(left),
                    max_bytes: OUTPUT_MAX_BYTES,
                };
                exec.run(&cmd).transpose()
            };
            if let Ok(mut all) = self.said.lock()
                && let Some(place) = all.get_mut(n)
            {
                *place = said;
            }
        }
    }

    /// How many workers are worth starting.
    pub fn workers(&self) -> usize {
        COMMANDS_AT_ONCE.min(self.todo.len())
    }

    /// No further command is started.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// What the tools that are there said: the record and the standard output.
    pub fn answers(self, problems: &mut Vec<Problem>) -> Vec<(Output, Vec<u8>)> {
        let said = self.said.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut answers = Vec::new();
        for (mut output, said) in self.todo.into_iter().zip(said) {
            match said {
                None => {}
                Some(Err(error)) => {
                    problems.push(Problem::notice(format!("{}: {error:#}", output.argv.join(" "))));
                }
                Some(Ok(said)) => {
                    output.status = said.status.to_string();
                    let stderr = &said.stderr[said.stderr.len().saturating_sub(STDERR_KEPT_BYTES)..];
                    output.stderr = mask(String::from_utf8_lossy(stderr).trim()).into_owned();
                    problems.extend(command_problem(&output, said.status, said.truncated));
                    answers.push((output, said.stdout));
                }
            }
        }
        answers
    }
}

/// A tool that says no is noted beside its output; one that does not end is worth a look.
fn command_problem(output: &Output, status: Status, truncated: bool) -> Option<Problem> {
    let argv = output.argv.join(" ");
    match status {
        Status::TimedOut => Some(
            Problem::warning(format!("`{argv}`: no end within {} s", COMMAND_LIMIT.as_secs()))
                .hint("something it asks hangs: a storage, a disk or a daemon"),
        ),
        _ if truncated => {
            Some(Problem::notice(format!("`{argv}`: its output was cut at {OUTPUT_MAX_BYTES} bytes")))
        }
        Status::Exit(0) => None,
        Status::Exit(_) | Status::Signal(_) => {
            log::debug!("`{argv}`: {} {}", output.status, output.stderr);
            None
        }
    }
}
