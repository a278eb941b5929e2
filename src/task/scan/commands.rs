//! The state that the host reports about itself: its tools and APIs are asked beside the walk, several at a time,
//! each and all with a time limit.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;

use super::api::ApiSession;
use crate::catalog::api::ApiAccess;
use crate::catalog::{self, Item, Source};
use crate::config;
use crate::model::facts::Product;
use crate::model::index::CommandOutput;
use crate::model::problem::Problem;
use crate::sys::host::Host;
use crate::sys::mask::mask;
use crate::sys::process::exec::{self, Cmd, ToolStatus};
use crate::sys::process::signals::check_stopped;

/// One question.
const QUESTION_LIMIT: Duration = Duration::from_secs(20);
/// All questions together.
const STATE_LIMIT: Duration = Duration::from_secs(120);
const QUESTIONS_AT_ONCE: usize = 4;
const OUTPUT_MAX_BYTES: usize = 16 << 20;
const STDERR_KEPT_BYTES: usize = 2048;

/// An item that is answered by a tool, or by an API when one is configured.
struct Question {
    output: CommandOutput,
    get: Option<Get>,
}

struct Get {
    api: &'static ApiAccess,
    path: String,
    query: &'static [(&'static str, &'static str)],
}

impl Question {
    fn of(item: &Item, host: &Host) -> Option<Self> {
        let with_node = |word: &str| word.replace("{node}", &host.facts.node);
        let (argv, get) = match item.source {
            Source::Output { argv, .. } => (argv.iter().map(|word| with_node(word)).collect(), None),
            Source::Api { path, query, .. } => {
                let (api, path) = (catalog::api::of(item.on)?, with_node(path));
                (api.command(&path, query), Some(Get { api, path, query }))
            }
            _ => return None,
        };
        let name = item.source.answer()?.to_owned();

        let output = CommandOutput {
            item: item.id.to_owned(),
            name,
            argv,
            status: String::new(),
            stderr: String::new(),
        };
        Some(Self { output, get })
    }
}

/// Lists the questions that will be asked, a line each.
pub fn questions(items: &[&'static Item], host: &Host, apis: &[(Product, config::ApiConfig)]) -> Vec<String> {
    let line = |question: Question| {
        let get = question.get.as_ref();
        let by_api =
            get.and_then(|get| apis.iter().find(|(product, _)| *product == get.api.product).zip(Some(get)));
        by_api.map_or_else(
            || question.output.argv.join(" "),
            |((_, api), get)| format!("GET {}", get.api.url(&api.server, api.port, &get.path, get.query)),
        )
    };
    items.iter().filter_map(|item| Question::of(item, host)).map(line).collect()
}

/// Questions asked beside the collecting, several at a time.
pub struct Inquiry<'a> {
    host: &'a Host,
    /// A session is opened by whoever needs it first; None when it cannot be had.
    sessions: Vec<(Product, &'a config::ApiConfig, OnceLock<Option<ApiSession>>)>,
    todo: Vec<Question>,
    said: Mutex<Vec<Option<Result<Said>>>>,
    problems: Mutex<Vec<Problem>>,
    next: AtomicUsize,
    stop: AtomicBool,
    deadline: Instant,
}

/// The answer to a question, and where it came from.
enum Said {
    Tool(exec::ProcessOutput),
    Api { url: String, text: Vec<u8> },
}

impl<'a> Inquiry<'a> {
    pub fn new(items: &[&'static Item], host: &'a Host, apis: &'a [(Product, config::ApiConfig)]) -> Self {
        let todo: Vec<Question> = items.iter().filter_map(|item| Question::of(item, host)).collect();
        let said = Mutex::new(todo.iter().map(|_| None).collect());
        Self {
            host,
            sessions: apis.iter().map(|(product, api)| (*product, api, OnceLock::new())).collect(),
            todo,
            said,
            problems: Mutex::default(),
            next: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            deadline: Instant::now() + STATE_LIMIT,
        }
    }

    pub fn work(&self) {
        while !self.stop.load(Ordering::Relaxed) && check_stopped().is_ok() {
            let n = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(question) = self.todo.get(n) else { return };
            let said = self.ask(question);
            if let Ok(mut all) = self.said.lock()
                && let Some(place) = all.get_mut(n)
            {
                *place = said;
            }
        }
    }

    /// None when the host has nobody to ask.
    fn ask(&self, question: &Question) -> Option<Result<Said>> {
        if let Some(get) = &question.get
            && let Some(session) = self.session(get.api)
        {
            let limit = QUESTION_LIMIT.min(self.left());
            match session.text(&get.path, get.query, limit, OUTPUT_MAX_BYTES as u64) {
                Ok(text) => return Some(Ok(Said::Api { url: session.url(&get.path, get.query), text })),
                // What the token may not read, root's own tool may.
                Err(error) => log::debug!("{error:#}"),
            }
        }

        let left = self.left();
        if left.is_zero() {
            let limit = STATE_LIMIT.as_secs();
            return Some(Err(anyhow::anyhow!("not run: all commands together took {limit} s")));
        }

        let limit = QUESTION_LIMIT.min(left);
        let cmd =
            Cmd { max_bytes: OUTPUT_MAX_BYTES, ..Cmd::new(question.output.argv.iter().cloned(), limit) };
        self.host.exec.run(&cmd).transpose().map(|said| said.map(Said::Tool))
    }

    fn session(&self, api: &'static ApiAccess) -> Option<&ApiSession> {
        let (_, configured, opened) = self.sessions.iter().find(|(product, ..)| *product == api.product)?;
        let open = || {
            let mut problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
            ApiSession::open(self.host, api, configured, &mut problems)
        };
        opened.get_or_init(open).as_ref()
    }

    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Returns the number of workers that are worth starting.
    pub fn workers(&self) -> usize {
        QUESTIONS_AT_ONCE.min(self.todo.len())
    }

    /// No further question is asked.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Returns the answers that came: the record, and the text.
    pub fn answers(self, problems: &mut Vec<Problem>) -> Vec<(CommandOutput, Vec<u8>)> {
        problems.append(&mut self.problems.into_inner().unwrap_or_else(PoisonError::into_inner));
        let said = self.said.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut answers = Vec::new();

        for (Question { mut output, .. }, said) in self.todo.into_iter().zip(said) {
            match said {
                None => {}
                Some(Err(error)) => {
                    problems.push(Problem::notice(format!("{}: {error:#}", output.argv.join(" "))));
                }
                Some(Ok(Said::Api { url, text })) => {
                    output.argv = vec!["GET".to_owned(), url];
                    "status 200".clone_into(&mut output.status);
                    answers.push((output, text));
                }
                Some(Ok(Said::Tool(said))) => {
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
fn command_problem(output: &CommandOutput, status: ToolStatus, truncated: bool) -> Option<Problem> {
    let argv = output.argv.join(" ");
    match status {
        ToolStatus::TimedOut => Some(
            Problem::warning(format!("`{argv}`: did not finish within {} s", QUESTION_LIMIT.as_secs()))
                .hint("something that it needs hangs: a storage, a disk or a daemon"),
        ),
        _ if truncated => {
            Some(Problem::notice(format!("`{argv}`: its output was cut at {OUTPUT_MAX_BYTES} bytes")))
        }
        ToolStatus::Exit(0) => None,
        ToolStatus::Exit(_) | ToolStatus::Signal(_) => {
            log::debug!("`{argv}`: {} {}", output.status, output.stderr);
            None
        }
    }
}
