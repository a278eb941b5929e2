//! `prometheus`: after each run, also a failed one, the metrics of this host in a file that `node_exporter` reads.

use std::path::Path;

use anyhow::Result;

use super::{records, status};
use crate::catalog::monitoring::{NODE_EXPORTER_DEFAULTS, TEXTFILE_DIRS, TEXTFILE_OPTION};
use crate::config::{Config, Prometheus};
use crate::model::problem::{Fault, Problem};
use crate::plan::metrics::{self, More};
use crate::sys::error_hint;
use crate::sys::fs::files;
use crate::sys::host::Host;
use crate::sys::host_dir::HostDir;
use crate::task::keys::key_check;

const FILE: &str = "pbx_config.prom";
/// `node_exporter` is a user of its own.
const MODE: u32 = 0o644;
const DEFAULTS_MAX_BYTES: u64 = 1 << 20;

/// Writes what is configured, not for a system that is only mounted here. What goes wrong is told.
pub fn write(host: &Host, config: &Config) -> Vec<Problem> {
    if config.prometheus.is_empty() || !host.exec.is_of_host() {
        return Vec::new();
    }

    let records = match records::all(host) {
        Ok(records) => records,
        Err(error) => return vec![Problem::warning(format!("metrics were not written: {error:#}"))],
    };
    let records = &records[..];
    let stores: Vec<(String, usize)> = config
        .stores
        .iter()
        .map(|section| (section.id.clone(), status::damaged(&section.id, records).len()))
        .collect();
    let text = metrics::text(
        records,
        &host.facts,
        More { key_proved: key_check::proof(host).map(|proof| proof.at), stores: &stores },
    );

    config
        .prometheus
        .iter()
        .filter_map(|(name, section)| {
            let error = write_one(host, section, &text).err()?;
            let problem = Problem::warning(format!("prometheus '{name}': {error:#}"));
            let hint = error_hint::own(&error);
            Some(problem.hint(hint.unwrap_or_else(|| "check that the directory can be written".to_owned())))
        })
        .collect()
}

fn write_one(host: &Host, section: &Prometheus, text: &str) -> Result<()> {
    folder(host, section)?.replace(FILE, MODE, text.as_bytes())
}

/// Opens the directory that is named, or the one that `node_exporter` reads. Errors: it does not exist.
pub fn folder(host: &Host, section: &Prometheus) -> Result<HostDir> {
    let fault = |message: String, hint: String| Fault::failed(message).hint(hint);
    if let Some(path) = &section.path {
        return host.dir(path).map_err(|_| {
            let hint = format!("`mkdir -p {path}`, and let node_exporter read it ({TEXTFILE_OPTION})");
            fault(format!("{}: is not a directory", host.path(path).display()), hint).into()
        });
    }

    let named = NODE_EXPORTER_DEFAULTS.iter().filter_map(|file| named_in(host, file));
    let usual = TEXTFILE_DIRS.iter().map(|dir| (*dir).to_owned());
    let found = named.chain(usual).find_map(|dir| host.dir(dir).ok());
    found.ok_or_else(|| {
        let message = format!(
            "node_exporter has no directory for metrics here; looked for {}",
            TEXTFILE_DIRS.join(", ")
        );
        fault(message, "install prometheus-node-exporter, or set its directory with `path`".to_owned()).into()
    })
}

/// Returns the value of the option in a defaults file; the last one counts.
fn named_in(host: &Host, file: &str) -> Option<String> {
    let text = files::read_small(host.root(), file, DEFAULTS_MAX_BYTES).ok()?;
    let text = String::from_utf8_lossy(&text).into_owned();
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    let words = lines.flat_map(|line| line.split([' ', '\t', '"', '\'']));
    let mut found = None;
    let mut next = false;
    for word in words.filter(|word| !word.is_empty()) {
        let word = word.strip_prefix("ARGS=").unwrap_or(word);
        if next || word.starts_with(TEXTFILE_OPTION) {
            let value = if next { Some(word) } else { word.strip_prefix(TEXTFILE_OPTION) };
            next = value == Some("");
            let path = value.map(|value| value.trim_start_matches('='));
            found = path.filter(|path| Path::new(path).is_absolute()).map(str::to_owned).or(found);
        }
    }

    found
}
