//! Writes the manual and the shell completions into a folder: `man/*.1 *.5 *.7` and `completions/*`.
//! What the command line says of itself comes from clap, the rest is written by hand beside this file.

use std::fs;
use std::io::Result;
use std::path::Path;

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// How `clap_mangen` leaves a line empty, which mandoc does not like.
const BLANK: &str = ".br\n\n.br\n";

const PAGE: &str = include_str!("pbx-config.1.in");
const BY_HAND: [(&str, &str); 2] = [
    ("pbx-config.cfg.5", include_str!("pbx-config.cfg.5")),
    ("proxmox-backup-extra.7", include_str!("proxmox-backup-extra.7")),
];

fn main() -> Result<()> {
    let target = std::env::args_os().nth(1).ok_or_else(|| std::io::Error::other("name a folder"))?;
    let (man, completions) = (Path::new(&target).join("man"), Path::new(&target).join("completions"));
    for folder in [&man, &completions] {
        // A page of a verb that is gone must not stay.
        let _ = fs::remove_dir_all(folder);
        fs::create_dir_all(folder)?;
    }
    let mut command = pbx_config::cli::command();
    command.build();
    fs::write(man.join("pbx-config.1"), main_page(&command)?)?;
    for (name, text) in BY_HAND {
        fs::write(
            man.join(name),
            text.replace("@VERSION@", env!("CARGO_PKG_VERSION")).replace("@DATE@", &date()),
        )?;
    }
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        let name = format!("pbx-config-{}", verb.get_name());
        fs::write(man.join(format!("{name}.1")), verb_page(verb, &name)?)?;
    }
    for (shell, name) in
        [(Shell::Bash, "pbx-config.bash"), (Shell::Zsh, "_pbx-config"), (Shell::Fish, "pbx-config.fish")]
    {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut command, "pbx-config", &mut script);
        fs::write(completions.join(name), script)?;
    }
    Ok(())
}

fn page(command: &Command) -> Man {
    Man::new(command.clone())
        .manual("Configuration backup")
        .date(date())
        .source(concat!("proxmox-backup-extra ", env!("CARGO_PKG_VERSION")))
}

/// Of the package, so that it is built twice the same; without one, that of the day.
fn date() -> String {
    let epoch = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|text| text.parse().ok());
    let at = epoch.and_then(|seconds| Timestamp::from_second(seconds).ok()).unwrap_or_else(Timestamp::now);
    at.to_zoned(TimeZone::UTC).date().to_string()
}

/// The template with its marks replaced.
fn main_page(command: &Command) -> Result<String> {
    let mut options = Vec::new();
    page(command).render_options_section(&mut options)?;
    let mut verbs = String::new();
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        let about = verb.get_about().map(ToString::to_string).unwrap_or_default();
        verbs +=
            &format!(".TP\n\\fBpbx\\-config\\-{}\\fR(1)\n{}\n", dashes(verb.get_name()), escaped(&about));
    }
    let page = PAGE.replace("@VERSION@", env!("CARGO_PKG_VERSION")).replace("@DATE@", &date());
    let page = page.replace(".\\\" @OPTIONS@\n", &String::from_utf8_lossy(&options));
    Ok(page.replace(".\\\" @VERBS@\n", &verbs).replace(BLANK, ".sp\n"))
}

/// A verb, and its own verbs when it has some.
fn verb_page(verb: &Command, name: &str) -> Result<String> {
    let spaced = name.replacen("pbx-config-", "pbx-config ", 1);
    let man = page(verb).title(name);
    let mut out = Vec::new();
    man.render_title(&mut out)?;
    man.render_name_section(&mut out)?;
    man.render_synopsis_section(&mut out)?;
    man.render_description_section(&mut out)?;
    man.render_options_section(&mut out)?;
    let below: Vec<&Command> = verb.get_subcommands().filter(|sub| !sub.is_hide_set()).collect();
    if !below.is_empty() {
        out.extend_from_slice(b".SH COMMANDS\n");
    }
    for sub in below {
        let mut arguments = String::new();
        for argument in sub.get_positionals() {
            arguments += &format!(" \\fI{}\\fR", argument.get_id().as_str().to_uppercase());
        }
        let about = sub.get_about().map(ToString::to_string).unwrap_or_default();
        let line = format!(
            ".TP\n\\fB{} {}\\fR{arguments}\n{}\n",
            dashes(&spaced),
            dashes(sub.get_name()),
            escaped(&about)
        );
        out.extend_from_slice(line.as_bytes());
    }
    if let Some(examples) = verb.get_after_help() {
        let text = examples.to_string();
        let text = text.strip_prefix("EXAMPLES:\n").unwrap_or(&text);
        let lines: String =
            text.lines().map(|line| escaped(line.strip_prefix("  ").unwrap_or(line)) + "\n").collect();
        out.extend_from_slice(format!(".SH EXAMPLES\n.nf\n{lines}.fi\n").as_bytes());
    }
    out.extend_from_slice(
        b".SH SEE ALSO\n\\fBpbx\\-config\\fR(1), \\fBpbx\\-config.cfg\\fR(5), \\fBproxmox\\-backup\\-extra\\fR(7)\n",
    );
    Ok(String::from_utf8_lossy(&out).replace(BLANK, ".sp\n"))
}

fn dashes(text: &str) -> String {
    text.replace('-', "\\-")
}

/// A line that roff prints as it is.
fn escaped(line: &str) -> String {
    let text = dashes(&line.replace('\\', "\\e"));
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}
