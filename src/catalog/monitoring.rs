//! Directories where `node_exporter` looks for files with metrics of others.

/// Files with the options of its package's command line: `ARGS="--collector.textfile.directory=…"`.
pub const NODE_EXPORTER_DEFAULTS: &[&str] =
    &["/etc/default/prometheus-node-exporter", "/etc/default/node_exporter", "/etc/sysconfig/node_exporter"];
/// The option that names the directory.
pub const TEXTFILE_OPTION: &str = "--collector.textfile.directory";
/// Directories for when no option names one: Debian's package first, then what installers and roles of others take.
pub const TEXTFILE_DIRS: &[&str] = &[
    "/var/lib/prometheus/node-exporter",
    "/var/lib/node_exporter/textfile_collector",
    "/var/lib/node_exporter",
    "/var/lib/prometheus/node_exporter",
];
