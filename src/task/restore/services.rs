//! Services around a restore: what runs is noted, stopped, started and restarted in the order of the items, each with
//! a limit and all within one deadline, and looked at afterwards.

use std::time::{Duration, Instant};

use std::path::Path;

use super::deadline::Deadline;
use super::probe;
use crate::catalog::api;
use crate::catalog::restore::early_boot::READ_EARLY;
use crate::config;
use crate::model::facts::Product;
use crate::model::problem::Problem;
use crate::plan::restore::stage::Services;
use crate::sys::host::Host;
use crate::sys::process::exec::{Cmd, ToolStatus};

/// A unit that takes longer to stop or start hangs.
const UNIT_LIMIT: Duration = Duration::from_secs(90);
const ASK_LIMIT: Duration = Duration::from_secs(10);
/// ifreload waits for addresses, `pvesh set /cluster/sdn` for every node.
const RUN_LIMIT: Duration = Duration::from_secs(120);
/// Time limit of a unit from its start to `active`, and of the API from there to its first answer.
const UP_LIMIT: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(300);
/// The time limit of one question to it; the last one may begin when the time is nearly over.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// Lists the units that run now. A host without systemd, or one that is only mounted, has none.
pub fn running<'a>(host: &Host, units: impl Iterator<Item = &'a String>) -> Vec<String> {
    let mut running: Vec<String> = Vec::new();
    for unit in units {
        if !running.contains(unit) && is_active(host, unit) {
            running.push(unit.clone());
        }
    }
    running
}

fn is_active(host: &Host, unit: &str) -> bool {
    let cmd = Cmd::new(["systemctl", "is-active", "--quiet", unit], ASK_LIMIT);
    matches!(host.exec.run(&cmd), Ok(Some(output)) if output.status == ToolStatus::Exit(0))
}

/// Stops the units that ran, in the order of the items.
pub fn stop(host: &Host, services: &Services, running: &[String], limit: Deadline) -> Vec<Problem> {
    let wanted = services.stop.iter().filter(|unit| running.contains(unit));
    wanted.filter_map(|unit| run(host, &["systemctl", "stop", unit], limit.cut(UNIT_LIMIT))).collect()
}

/// Makes the new files count: commands, then what was stopped is started, then what runs is restarted; and looks
/// whether all of it came up.
pub fn settle(
    host: &Host,
    services: &Services,
    running: &[String],
    apis: &[(Product, config::ApiConfig)],
    limit: Deadline,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    for command in &services.run {
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        problems.extend(run(host, &words, limit.cut(RUN_LIMIT)));
    }

    let mut seen_to = Vec::new();
    for (units, verb) in [(&services.stop, "start"), (&services.restart, "restart")] {
        for unit in units.iter().filter(|unit| running.contains(unit)) {
            problems.extend(run(host, &["systemctl", verb, unit], limit.cut(UNIT_LIMIT)));
            seen_to.push(unit.as_str());
        }
    }

    // Nothing runs on a system that is only mounted here.
    seen_to.retain(|_| host.exec.is_of_host());
    for unit in seen_to {
        if within(limit.cut(UP_LIMIT), || is_active(host, unit).then_some(()).ok_or(())).is_err() {
            let problem = Problem::error(format!("{unit}: did not start"));
            problems.push(problem.hint(format!("see `systemctl status {unit}`")));
        } else if let Some(api) = api::of_unit(unit) {
            problems.extend(answers(api, unit, apis, limit));
        }
    }
    problems
}

/// Runs the commands that read these paths again, for those that this boot had read before they were put back. The
/// services themselves are yet to be started.
pub fn read_again_at_boot<'a>(host: &Host, touched: impl Iterator<Item = &'a Path>) {
    let touched: Vec<&Path> = touched.collect();
    for reader in READ_EARLY.iter().filter(|reader| touched.iter().any(|path| reader.meets(path))) {
        for words in reader.again {
            if let Some(problem) = run(host, words, UNIT_LIMIT) {
                log::warn!("{}", problem.what);
            }
        }
    }
}

/// None: it was done, or the host has no such tool; or no time is left, which the whole restore fails of.
fn run(host: &Host, words: &[&str], limit: Duration) -> Option<Problem> {
    if limit.is_zero() {
        return None;
    }
    let shown = words.join(" ");
    log::info!("{shown}");

    let problem = match host.exec.run(&Cmd::new(words.iter().copied(), limit)) {
        Ok(Some(output)) if output.status == ToolStatus::Exit(0) => return None,
        // A system that is only mounted here, or a tool that came with what is not here.
        Ok(None) if !host.exec.is_of_host() => return None,
        Ok(None) => Problem::notice(format!("{shown}: there is no {}", words[0])),
        Ok(Some(output)) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let said = said.lines().last().map(|line| format!(": {line}")).unwrap_or_default();
            Problem::error(format!("{shown}: {}{said}", output.status))
        }
        Err(error) => Problem::error(format!("{shown}: {error:#}")),
    };
    Some(problem.hint("the files are restored; see the journal, then run it by hand"))
}

/// Tries until it succeeds or the time is over. Errors: of the last try.
fn within<E>(limit: Duration, is_so: impl Fn() -> Result<(), E>) -> Result<(), E> {
    let since = Instant::now();
    loop {
        let tried = is_so();
        if tried.is_ok() || since.elapsed() >= limit {
            return tried;
        }
        std::thread::sleep(POLL);
    }
}

/// Reports whether the API answers again. It is sent no secret: its certificate, which may just have been restored,
/// proves nothing that matters here.
fn answers(
    api: &api::ApiAccess,
    unit: &str,
    apis: &[(Product, config::ApiConfig)],
    limit: Deadline,
) -> Option<Problem> {
    let known = apis.iter().find(|(of, _)| *of == api.product).map(|(_, api)| api);
    let server = known.map_or(config::THIS_HOST, |api| api.server.as_str());
    let url = api.url(server, known.and_then(|api| api.port), api::VERSION, &[]);
    let why = within(limit.cut(UP_LIMIT), || probe::answers(&url, ANSWER_LIMIT)).err()?;
    let problem = Problem::error(format!("{unit}: its API does not answer: {url}: {why}"));
    Some(problem.hint(format!("see `journalctl -u {unit}`")))
}
