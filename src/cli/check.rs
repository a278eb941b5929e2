//! `check`: what was looked at, and what to do.

use std::fmt::Write as _;

use anyhow::Result;
use clap::Args;

use super::{Words, args, render};
use crate::model::report::Exit;
use crate::plan::complete::Coverage;
use crate::plan::select::Selection;
use crate::task::complete;
use crate::task::sources::Sources;

/// Look at the host, and at what of it is in no backup
#[derive(Debug, Args)]
#[command(after_help = "EXAMPLES:
  pbx-config check --complete      every file that is in no backup")]
pub struct Check {
    /// List what of this host is neither saved nor left out by name
    #[arg(long)]
    pub complete: bool,
}

impl Words<'_> {
    pub(super) fn check(&mut self, args: &Check) -> Result<Exit> {
        let config = self.config()?;
        let stores = self.stores(&config, &args::Stores { names: Vec::new() })?;
        let sources = Sources::new(&self.host, &config, &stores, &Selection::default())?;
        let Some(coverage) = complete::of_host(&self.host, &sources)? else {
            self.print(&serde_json::Value::Null, |_| {
                "there is no dpkg here; what is missing cannot be told\n".to_owned()
            })?;
            return Ok(Exit::Ok);
        };
        self.print(&coverage, |coverage| text(coverage, args.complete))?;
        Ok(if coverage.unexplained > 0 { Exit::Problems } else { Exit::Ok })
    }
}

fn text(coverage: &Coverage, list: bool) -> String {
    let Coverage { files, saved, packaged, unexplained, .. } = coverage;
    let mut text = format!(
        "files        {files}\nsaved        {saved}\nof packages  {packaged}, as they brought them\n"
    );
    let _ = writeln!(text, "unexplained  {unexplained}");
    if coverage.truncated {
        text.push_str("             more than is looked at; name what is no configuration in `exclude`\n");
    }
    if !list || coverage.places.is_empty() {
        return text;
    }
    let row = |place: &crate::plan::complete::Place| {
        let slash = if place.files > 1 { "/" } else { "" };
        let by = place.by.as_ref().map(|by| format!("  (by {by})")).unwrap_or_default();
        vec![place.why.to_string(), place.files.to_string(), format!("/{}{slash}{by}", place.path)]
    };
    text.push('\n');
    text.push_str(&render::table(
        &["WHY", "FILES", "PATH"],
        &coverage.places.iter().map(row).collect::<Vec<_>>(),
    ));
    text + "hint: `include PATH` under 'backup: main' saves one, `exclude PATH` says that it is not wanted\n"
}
