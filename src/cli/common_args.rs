//! Arguments that several verbs take.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

#[derive(Debug, Args)]
pub struct Global {
    /// Work on the system mounted here instead of the running one
    #[arg(long, global = true, value_name = "DIR", default_value = "/", hide_default_value = true)]
    pub root: PathBuf,
    /// Form of what goes to standard output, and of errors
    #[arg(long, global = true, value_enum, value_name = "FORMAT", default_value = "text")]
    pub output_format: Format,
    /// Short for --output-format json
    #[arg(long, global = true)]
    pub json: bool,
    /// Opens sealed snapshots: a file of age identities or an SSH key
    #[arg(long = "identity", global = true, value_name = "FILE")]
    pub identities: Vec<PathBuf>,
    /// No progress and no talk, only results and errors
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// More talk; twice for everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count, conflicts_with = "quiet")]
    pub verbose: u8,
}

impl Global {
    pub fn format(&self) -> Format {
        if self.json && self.output_format == Format::Text { Format::Json } else { self.output_format }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Text,
    Json,
    JsonPretty,
}

#[derive(Debug, Args)]
pub struct Stores {
    /// Only these stores, by name; a path with a / is a folder of snapshots
    #[arg(long = "store", value_name = "NAME|FOLDER")]
    pub names: Vec<String>,
}

#[derive(Debug, Args)]
pub struct Selected {
    /// Only these items or categories (`pbx-config catalog` shows them)
    #[arg(long, value_name = "ITEM|CATEGORY", value_delimiter = ',')]
    pub only: Vec<String>,
    /// All but these items or categories
    #[arg(long, value_name = "ITEM|CATEGORY", value_delimiter = ',')]
    pub skip: Vec<String>,
}
