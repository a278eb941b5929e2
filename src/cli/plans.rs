//! The plan of a restore as text: by category, what changes and how, what does not and why.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::render::{self, one_line, size};
use crate::catalog::{self, Category};
use crate::model::index::Kind;
use crate::plan::restore::{How, RestorePlan, Services, Step};
use crate::task::perform::Restored;
use crate::task::preview::{Does, Preview};
use crate::task::undo::{Back, Undone};

pub fn text(plan: &RestorePlan) -> String {
    let mut text =
        format!("snapshot   {}\nfrom       {}\nonto       {}\n", plan.snapshot, plan.from, plan.here);
    for difference in &plan.differences {
        let (there, here) = (one_line(&difference.there), one_line(&difference.here));
        let _ = writeln!(text, "differs    {}: {there} there, {here} here", difference.what);
        let _ = writeln!(text, "           {}", difference.means);
    }
    for (category, steps) in by_category(plan) {
        let _ = writeln!(text, "\n{category}");
        for step in steps {
            text.push_str(&line(step));
        }
    }
    if !plan.refused.is_empty() {
        text.push_str("\nleft alone\n");
        for refused in &plan.refused {
            let more = match refused.count {
                1 => String::new(),
                n => format!(" and {} more", n - 1),
            };
            let _ =
                writeln!(text, "  {}: /{}{more}: {}", refused.item, refused.path, one_line(&refused.reason));
            if let Some(hint) = &refused.hint {
                let _ = writeln!(text, "      {}", one_line(hint));
            }
        }
    }
    text.push_str(&services("then", &plan.calm));
    text.push_str(&services("then, armed", &plan.session));
    if !plan.advice.is_empty() {
        text.push_str("\nby hand\n");
        for advice in &plan.advice {
            let _ = writeln!(text, "  {}: {}", advice.item, one_line(&advice.text));
            for command in &advice.commands {
                let _ = writeln!(text, "      {}", one_line(command));
            }
        }
    }
    let _ = writeln!(text, "\n{}", summary(plan));
    text
}

fn by_category(plan: &RestorePlan) -> Vec<(Category, Vec<&Step>)> {
    let categories: BTreeMap<&str, Category> =
        catalog::items().map(|item| (item.id, item.category)).collect();
    let of = |step: &Step| categories.get(step.item.as_str()).copied().unwrap_or(Category::Custom);
    let all = Category::ALL.into_iter();
    all.map(|category| (category, plan.steps.iter().filter(|step| of(step) == category).collect::<Vec<_>>()))
        .filter(|(_, steps)| !steps.is_empty())
        .collect()
}

fn line(step: &Step) -> String {
    let mut text = format!("  {:<10} /{}", step.how, step.path);
    if let Some(link) = &step.after.link {
        let _ = write!(text, " -> {link}");
    }
    if step.how == How::Create && step.after.kind == Kind::File {
        let _ = write!(text, "  ({})", size(step.after.size));
    }
    if let Some(diff) = &step.diff {
        let _ = write!(text, "  (+{} -{} lines)", diff.added, diff.removed);
    }
    text.push_str(&runs_as(step));
    if step.session {
        text.push_str("  [may cut your connection]");
    }
    text.push('\n');
    if let Some(diff) = &step.diff {
        for line in &diff.lines {
            let _ = writeln!(text, "      {}", line.replace('\t', "    "));
        }
        if diff.more > 0 {
            let _ = writeln!(text, "      ... {} more lines", diff.more);
        }
    }
    text
}

/// Who runs such a program is somebody else while it runs.
fn runs_as(step: &Step) -> String {
    const SETUID: u32 = 0o4000;
    const SETGID: u32 = 0o2000;
    let after = &step.after;
    let mut text = String::new();
    if after.kind == Kind::File && after.mode & SETUID != 0 {
        let _ = write!(text, "  [setuid: runs as user {}]", after.uid);
    }
    if after.kind == Kind::File && after.mode & SETGID != 0 {
        let _ = write!(text, "  [setgid: runs as group {}]", after.gid);
    }
    text
}

fn services(title: &str, services: &Services) -> String {
    let mut lines = Vec::new();
    if !services.stop.is_empty() {
        lines.push(format!("stop before, start after: {}", services.stop.join(" ")));
    }
    lines.extend(services.run.iter().map(|command| command.join(" ")));
    if !services.restart.is_empty() {
        lines.push(format!("restart what runs of: {}", services.restart.join(" ")));
    }
    if lines.is_empty() {
        return String::new();
    }
    format!("\n{title}\n  {}\n", lines.join("\n  "))
}

/// "12 to create, 3 to replace, 1 to merge; 840 are here already; 5 are left alone"
pub fn summary(plan: &RestorePlan) -> String {
    let count = |how| plan.steps.iter().filter(|step| step.how == how).count();
    let refused: usize = plan.refused.iter().map(|refused| refused.count).sum();
    format!(
        "{} to create, {} to replace, {} to merge, {} to set right{}; {} are here already; {refused} are left alone",
        count(How::Create),
        count(How::Replace),
        count(How::Merge),
        count(How::Attributes),
        match count(How::Remove) {
            0 => String::new(),
            n => format!(", {n} to remove"),
        },
        plan.unchanged
    )
}

/// What an undo or a resumed restore would do.
pub fn preview(ahead: &Preview) -> String {
    let mut text = format!("restore    {} of {}: {}\n", ahead.id, ahead.snapshot, ahead.phase);
    for one in &ahead.paths {
        let changed = if one.does == Does::Back(Back::Changed) { "  (was changed since)" } else { "" };
        let _ = writeln!(text, "  {:<10} /{}{changed}", one.does, one.path);
    }
    if ahead.paths.is_empty() {
        text.push_str("no path is left to be changed\n");
    }
    text.push_str(&services("then", &ahead.calm));
    text.push_str(&services("then, what may cut your connection", &ahead.session));
    text
}

pub fn restored(done: &Restored) -> String {
    let Restored { id, changed, .. } = done;
    let mut text =
        format!("restored   {changed} paths from {}; undo it with: pbx-config undo {id}\n", done.snapshot);
    if let Some(armed) = &done.armed {
        let probes = if armed.has_probes() { "; its probes may decide before" } else { "" };
        let _ = writeln!(
            text,
            "armed      it undoes itself in {} s, unless from a NEW session: pbx-config confirm{probes}",
            armed.left()
        );
    }
    text.push_str(&render::problems(&done.problems));
    text
}

pub fn undone(done: &Undone) -> String {
    let mut text = if done.already {
        format!("undone     {} was undone already; nothing is done again\n", done.id)
    } else {
        format!("undone     {} paths of {} are again what they were\n", done.put_back, done.id)
    };
    if let Some(older) = &done.older {
        let _ = writeln!(text, "older      {older} is not undone: pbx-config undo {older}");
    }
    if done.left > 0 {
        let _ = writeln!(text, "left       {} paths", done.left);
    }
    text.push_str(&render::problems(&done.problems));
    text
}
