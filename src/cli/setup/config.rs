//! `config show` and `config check`: print the configuration in force, and whether it is valid.

use anyhow::Result;

use crate::archive::recipient::Recipient;
use crate::cli::{App, render};
use crate::config::Config;
use crate::model::problem::{Exit, Outcome};
use crate::model::units::counted;
use crate::notify as channels;
use crate::task::{error, keys as keys_of_host};

impl App<'_> {
    pub(in crate::cli) fn config_show(&mut self) -> Result<Exit> {
        let config = self.config()?;
        let sections: Vec<_> = config.sections.iter().map(|section| {
            let entries: Vec<_> = section.entries.iter().map(|entry| serde_json::json!({
                "key": entry.key, "value": Config::shown(entry), "file": *entry.file, "line": entry.line,
            })).collect();
            serde_json::json!({ "kind": section.kind, "id": section.id, "file": *section.file, "line": section.line, "entries": entries })
        }).collect();
        let value = serde_json::json!({ "sections": sections, "problems": config.problems });

        self.print(&value, |_| {
            let mut text = String::new();
            for section in &config.sections {
                text.push_str(&format!(
                    "{}: {}    # {}\n",
                    section.kind,
                    section.id,
                    origin(&section.file, section.line)
                ));
                for entry in &section.entries {
                    let line = format!("\t{} {}", entry.key, Config::shown(entry));
                    text.push_str(&format!("{}    # {}\n", line.trim_end(), origin(&entry.file, entry.line)));
                }
                text.push('\n');
            }
            text.truncate(text.trim_end().len());
            text + "\n"
        })?;
        self.tell(&config.problems);
        Ok(Outcome::of(&config.problems).into())
    }

    pub(in crate::cli) fn config_check(&mut self) -> Result<Exit> {
        let config = self.config()?;
        let (compression, opened) = self.sound(&config)?;
        let sealed_to: Vec<_> =
            keys_of_host::recipients(&self.host, &config)?.iter().map(Recipient::fingerprint).collect();
        let mut problems = config.problems.clone();
        let mut stores = Vec::new();

        for store in opened {
            match store.list(Some(&self.host.facts.node)) {
                Ok(found) => stores.push(format!(
                    "{}: {} ({} of this host)",
                    store.name(),
                    store.place(),
                    counted(found.len(), "snapshot")
                )),
                Err(error) => problems.push(error::error(&error)),
            }
        }

        let channels = config.channels.iter().map(channels::open).collect::<Result<Vec<_>>>()?;
        let channels: Vec<String> = channels
            .iter()
            .map(|target| format!("{} '{}': {}", target.kind, target.name, target.channel.place()))
            .collect();
        let value = serde_json::json!({
            "files": config.files, "compression": compression, "sealed-to": sealed_to, "stores": stores, "channels": channels,
            "problems": problems,
        });
        self.print(&value, |_| {
            let mut text = String::new();
            if config.files.is_empty() {
                text.push_str("ok: no configuration file, the defaults are in force\n");
            }
            config.files.iter().for_each(|file| text.push_str(&format!("ok: {file}\n")));
            sealed_to.iter().for_each(|print| text.push_str(&format!("ok: encrypted to {print}\n")));
            stores.iter().for_each(|store| text.push_str(&format!("ok: store {store}\n")));
            channels.iter().for_each(|channel| text.push_str(&format!("ok: {channel}\n")));
            text + &render::problems(&problems)
        })?;
        Ok(Outcome::of(&problems).into())
    }
}

fn origin(file: &str, line: usize) -> String {
    if line == 0 { file.to_owned() } else { format!("{file}:{line}") }
}
