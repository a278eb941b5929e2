//! `config export` and `config import`: the configuration as YAML or JSON.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::ValueEnum;
use serde::Serialize;

use crate::cli::{App, render};
use crate::config::exchange::{self, Imported};
use crate::config::{Config, FILE};
use crate::model::problem::{Exit, Fault};
use crate::sys::host::CONFIG_DIR;
use crate::sys::input;
use crate::task::setup::configure::{self, Files};
use crate::{notify, store};

#[derive(Debug, clap::Args)]
#[command(after_help = "EXAMPLES:
  pbx-config config export > pbx-config.yaml
  pbx-config config export --format json --secrets | ssh pve2 pbx-config config import -

The output contains the sections of this host's files and of the cluster's. Without --secrets each secret is ***,
which an import on this host replaces by the secret that it already has.")]
pub struct Export {
    #[arg(long, value_enum, default_value = "yaml")]
    pub format: ExchangeFormat,
    /// Include the secrets in the output
    #[arg(long)]
    pub secrets: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum ExchangeFormat {
    Yaml,
    Json,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "EXAMPLES:
  pbx-config config import pbx-config.yaml --dry-run
  pbx-config config import pbx-config.yaml

It replaces the configuration of this node; the previous files are kept beside the new ones, with the suffix
.before-import. A configuration that is not valid is not imported, and nothing is written.")]
pub struct Import {
    /// YAML or JSON file; - is standard input
    pub file: PathBuf,
    /// Check it and show the resulting files with masked secrets, without writing anything
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Serialize)]
struct Done {
    sections: usize,
    written: Vec<String>,
    kept: Vec<String>,
}

impl App<'_> {
    pub(in crate::cli) fn config_export(&mut self, args: &Export) -> Result<Exit> {
        let config = self.config()?;
        let document = exchange::export(&config, args.secrets);
        let text = match args.format {
            ExchangeFormat::Yaml => document.yaml()?,
            ExchangeFormat::Json => serde_json::to_string_pretty(&document)? + "\n",
        };
        self.write(text.as_bytes())?;
        if document.secrets() > 0 && !args.secrets {
            log::warn!("{} secrets are masked; --secrets writes them", document.secrets());
        }

        let cluster: Vec<&String> =
            config.files.iter().filter(|file| !file.ends_with(&format!("{CONFIG_DIR}/{FILE}"))).collect();
        if cluster.iter().any(|file| file.ends_with(FILE)) {
            log::warn!("it contains sections of the cluster; an import makes them local to the node");
        }
        Ok(Exit::Ok)
    }

    pub(in crate::cli) fn config_import(&mut self, args: &Import) -> Result<Exit> {
        let name = args.file.display().to_string();
        let text = exchange::utf8(&name, read(&args.file)?)?;

        // A configuration that cannot be read has no secrets to keep, and is what an import may mend.
        let known = self.config().map(|config| exchange::secrets(&config)).unwrap_or_default();
        let imported = Imported::parse(&name, &text, &known)?;
        let config =
            Config::of_sections(imported.sections.clone(), &store::kind_names(), &notify::kind_names())?;
        self.sound(&config)?;

        let (public, secrets) = imported.files();
        if args.dry_run {
            let shown: Vec<_> =
                config.sections.iter().filter(|section| *section.file == *name).cloned().collect();
            let text = render::sections(&shown);
            self.print(&serde_json::json!({ "configuration": text }), |_| text.clone())?;
            return Ok(Exit::Ok);
        }

        let (written, kept) = configure::write(&self.host, &Files { public, secrets }, "import")?;
        let names = |paths: Vec<PathBuf>| paths.iter().map(|path| path.display().to_string()).collect();
        let done = Done { sections: imported.sections.len(), written: names(written), kept: names(kept) };
        self.print(&done, |done| {
            let mut text = format!("{} sections imported\n", done.sections);
            done.written.iter().for_each(|path| text.push_str(&format!("written  {path}\n")));
            done.kept.iter().for_each(|path| text.push_str(&format!("kept     {path}\n")));
            text
        })?;
        Ok(Exit::Ok)
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let shown = || format!("cannot read {}", path.display());
    let read = if path == Path::new("-") {
        input::read_stdin(exchange::MAX_BYTES)
    } else {
        input::read(path, exchange::MAX_BYTES)
    };
    let bytes = read.map_err(|error| match error.kind() {
        ErrorKind::NotFound => Fault::not_found(format!("{}: no such file", path.display())).into(),
        ErrorKind::FileTooLarge => Fault::usage(format!("{}: is {error}", path.display())).into(),
        _ => anyhow::Error::from(error).context(shown()),
    })?;
    Ok(bytes.to_vec())
}
