//! The plan of a restore as text: by category, what changes and how, what does not and why.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::{one_line, size};
use crate::catalog::{self, Category};
use crate::cli::render;
use crate::model::index::EntryKind;
use crate::model::units::counted;
use crate::plan::restore::stage::Stage;
use crate::plan::restore::{Action, RestorePlan, RestoreStep, Skipped};
use crate::task::restore::Restored;
use crate::task::restore::preview::{Does, Preview};
use crate::task::restore::undo::{UndoAction, Undone};

pub fn text(plan: &RestorePlan) -> String {
    let mut text =
        format!("snapshot   {}\nfrom       {}\nonto       {}\n", plan.snapshot, plan.from, plan.here);
    for difference in &plan.differences {
        let (there, here) = (one_line(&difference.there), one_line(&difference.here));
        let _ = writeln!(text, "differs    {}: {there} there, {here} here", difference.what);
        let _ = writeln!(text, "           {}", difference.means);
    }

    text.push_str(&render::problems(&plan.problems));
    for (category, steps) in by_category(plan) {
        let _ = writeln!(text, "\n{category}");
        for step in steps {
            text.push_str(&line(step));
        }
    }

    text.push_str(&skipped(&plan.skipped));
    plan.stages.iter().for_each(|stage| text.push_str(&services("then, with automatic rollback", stage)));
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

/// Lists the skipped paths; those with the same reason stand together.
fn skipped(all: &[Skipped]) -> String {
    let mut groups: Vec<(&str, Vec<&Skipped>)> = Vec::new();
    for path in all {
        match groups.iter_mut().find(|(reason, _)| *reason == path.reason) {
            Some((_, group)) => group.push(path),
            None => groups.push((&path.reason, vec![path])),
        }
    }

    let text: String =
        groups.into_iter().map(|(reason, group)| skipped_group(&one_line(reason), &group)).collect();
    if text.is_empty() { text } else { format!("\nskipped\n{text}") }
}

fn skipped_group(reason: &str, group: &[&Skipped]) -> String {
    if let [path] = group {
        return format!("  {}: {reason}\n{}", skipped_path(path), skip_hint(path).unwrap_or_default());
    }

    // A hint that names its own item is the same for all.
    let general = |path: &Skipped| {
        skip_hint(path).map(|hint| hint.replace(&format!("--only {}`", path.item), "--only ITEM`"))
    };
    let of_all = group.first().and_then(|path| general(path));
    let is_one = group.iter().all(|path| general(path) == of_all);

    let mut text = format!("  {reason}\n");
    for path in group {
        let _ = writeln!(text, "    {}", skipped_path(path));
        text.push_str(&skip_hint(path).filter(|_| !is_one).unwrap_or_default());
    }
    text + &of_all.filter(|_| is_one).unwrap_or_default()
}

fn skipped_path(skipped: &Skipped) -> String {
    match skipped.count {
        1 => format!("{}: /{}", skipped.item, skipped.path),
        n => format!("{}: /{} and {} more", skipped.item, skipped.path, n - 1),
    }
}

fn skip_hint(skipped: &Skipped) -> Option<String> {
    skipped.hint.as_deref().map(|hint| format!("      {}\n", one_line(hint)))
}

fn by_category(plan: &RestorePlan) -> Vec<(Category, Vec<&RestoreStep>)> {
    let categories: BTreeMap<&str, Category> =
        catalog::items().map(|item| (item.id, item.category)).collect();
    let of = |step: &RestoreStep| categories.get(step.item.as_str()).copied().unwrap_or(Category::Custom);
    let all = Category::ALL.into_iter();
    all.map(|category| (category, plan.steps.iter().filter(|step| of(step) == category).collect::<Vec<_>>()))
        .filter(|(_, steps)| !steps.is_empty())
        .collect()
}

fn line(step: &RestoreStep) -> String {
    let mut text = format!("  {:<10} /{}", step.how, step.path);
    if let Some(link) = &step.after.link {
        let _ = write!(text, " -> {link}");
    }
    if step.how == Action::Create && step.after.kind == EntryKind::File {
        let _ = write!(text, "  ({})", size(step.after.size));
    }
    if let Some(diff) = &step.diff {
        let _ = write!(text, "  (+{} -{} lines)", diff.added, diff.removed);
    }
    text.push_str(&runs_as(step));
    if step.may_disconnect {
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

/// Writes a mark for a setuid or setgid program: it runs as another user or group. Empty for every other file.
fn runs_as(step: &RestoreStep) -> String {
    const SETUID: u32 = 0o4000;
    const SETGID: u32 = 0o2000;
    let after = &step.after;
    let mut text = String::new();
    if after.kind == EntryKind::File && after.mode & SETUID != 0 {
        let _ = write!(text, "  [setuid: runs as user {}]", after.uid);
    }
    if after.kind == EntryKind::File && after.mode & SETGID != 0 {
        let _ = write!(text, "  [setgid: runs as group {}]", after.gid);
    }
    text
}

/// Writes the services of a stage; `disconnecting` is the title of one that may cut the admin's connection.
fn services(disconnecting: &str, stage: &Stage) -> String {
    let title = if stage.may_disconnect { disconnecting } else { "then" };
    let services = &stage.services;
    let mut lines = Vec::new();
    if !services.stop.is_empty() {
        lines.push(format!("stop before, start after: {}", services.stop.join(" ")));
    }
    lines.extend(services.run.iter().map(|command| command.join(" ")));
    if !services.restart.is_empty() {
        lines.push(format!("restart if running: {}", services.restart.join(" ")));
    }
    if lines.is_empty() {
        return String::new();
    }
    format!("\n{title}\n  {}\n", lines.join("\n  "))
}

/// "12 to create, 3 to replace; 840 are here already; 5 are left alone"
pub fn summary(plan: &RestorePlan) -> String {
    let counted = |(how, what)| match plan.steps.iter().filter(|step| step.how == how).count() {
        0 => None,
        number => Some(format!("{number} {what}")),
    };

    let kinds = [
        (Action::Create, "to create"),
        (Action::Replace, "to replace"),
        (Action::Merge, "to merge"),
        (Action::Attributes, "to set attributes"),
        (Action::Remove, "to remove"),
    ];
    let steps: Vec<String> = kinds.into_iter().filter_map(counted).collect();
    let refused: usize = plan.skipped.iter().map(|refused| refused.count).sum();
    let are = |number| if number == 1 { "is" } else { "are" };
    let mut parts = vec![if steps.is_empty() { "nothing to do".to_owned() } else { steps.join(", ") }];
    parts.extend(
        (plan.unchanged > 0).then(|| format!("{} {} here already", plan.unchanged, are(plan.unchanged))),
    );
    parts.extend((refused > 0).then(|| format!("{refused} {} skipped", are(refused))));
    parts.join("; ")
}

/// Writes the steps that an undo or a resumed restore would do.
pub fn preview(ahead: &Preview) -> String {
    let mut text = format!("restore    {} of {}: {}\n", ahead.id, ahead.snapshot, ahead.phase);
    for one in &ahead.paths {
        let changed = if one.does == Does::Back(UndoAction::Changed) { "  (was changed since)" } else { "" };
        let _ = writeln!(text, "  {:<10} /{}{changed}", one.does, one.path);
    }
    if ahead.paths.is_empty() {
        text.push_str("nothing is left to change\n");
    }
    let title = "then, what may cut your connection";
    ahead.stages.iter().for_each(|stage| text.push_str(&services(title, stage)));
    text
}

pub fn restored(done: &Restored) -> String {
    let Restored { id, changed, .. } = done;
    let mut text = format!(
        "restored   {} from {}; undo it with: pbx-config undo {id}\n",
        counted(*changed, "path"),
        done.snapshot
    );
    if let Some(armed) = &done.armed {
        let probes = if armed.has_probes() { "; its probes may decide earlier" } else { "" };
        let _ = writeln!(
            text,
            "armed      rolled back in {} s, unless you type in a NEW session: pbx-config confirm{probes}",
            armed.left()
        );
    }

    text.push_str(&render::problems(&done.problems));
    text
}

pub fn undone(done: &Undone) -> String {
    let mut text = if done.already {
        format!("undone     {} was undone already; nothing was changed\n", done.id)
    } else {
        let are = if done.put_back == 1 { "is as before" } else { "are as before" };
        format!("undone     {} of {} {are}\n", counted(done.put_back, "path"), done.id)
    };
    if let Some(older) = &done.older {
        let _ = writeln!(text, "older      {older} is not undone: pbx-config undo {older}");
    }
    if done.left > 0 {
        let _ = writeln!(text, "skipped    {}", counted(done.left, "path"));
    }
    text.push_str(&render::problems(&done.problems));
    text
}
