//! Where `node_exporter` looks for files with metrics of others.

/// What its package says on its command line: `ARGS="--collector.textfile.directory=…"`.
pub const NODE_EXPORTER_DEFAULTS: &[&str] =
    &["/etc/default/prometheus-node-exporter", "/etc/default/node_exporter", "/etc/sysconfig/node_exporter"];
/// The option that names the folder.
pub const TEXTFILE_OPTION: &str = "--collector.textfile.directory";
/// Where it is when nothing names it: Debian's package first, then what installers and roles of others take.
pub const TEXTFILE_DIRS: &[&str] = &[
    "/var/lib/prometheus/node-exporter",
    "/var/lib/node_exporter/textfile_collector",
    "/var/lib/node_exporter",
    "/var/lib/prometheus/node_exporter",
];
