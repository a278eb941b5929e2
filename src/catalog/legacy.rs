//! Places of the legacy program (Bash `proxmox-backup`, then Go, today ProxSave) on a host, and what starts it.
//! It is only looked at, never changed.

/// Directories where it installs itself, the newer name first.
pub const INSTALL_DIRS: [&str; 2] = ["/opt/proxsave", "/opt/proxmox-backup"];
/// Its configuration below that, the newer place first.
pub const ENV_FILES: [&str; 2] = ["configs/backup.env", "env/backup.env"];
/// Its program outside of that. The bare name `proxmox-backup` is PBS's own service too.
const PROGRAMS: [&str; 2] = ["/usr/local/bin/proxsave", "/usr/local/bin/proxmox-backup"];
const NAME: &str = "proxsave";
/// The salt of its passphrase, beside the recipient file.
pub const SALT_FILE: &str = "passphrase.salt";

/// Tables of cron with a user in each line.
pub const CRONTAB: &str = "/etc/crontab";
pub const CRON_DIR: &str = "/etc/cron.d";
/// Root's own table, which `crontab` edits.
pub const ROOT_CRONTAB: &str = "/var/spool/cron/crontabs/root";
pub const UNIT_DIR: &str = "/etc/systemd/system";

/// The word of a command line that starts it.
pub fn named_in(line: &str) -> Option<&str> {
    line.split(|c: char| c.is_whitespace() || "\"'`;&|()=".contains(c)).find(|word| is_program(word))
}

/// True for a path that is its program, or lies in its installation.
pub fn is_program(path: &str) -> bool {
    let inside =
        |dir: &str| path.strip_prefix(dir).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    INSTALL_DIRS.iter().any(|dir| inside(dir))
        || PROGRAMS.contains(&path)
        || path.rsplit('/').next().is_some_and(|name| name == NAME)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_old_tool_is_meant_by_its_names() {
        for (line, expected) in [
            ("0 2 * * * root /usr/local/bin/proxmox-backup", Some("/usr/local/bin/proxmox-backup")),
            ("ExecStart=/opt/proxsave/build/proxsave --daemon", Some("/opt/proxsave/build/proxsave")),
            ("0 2 * * * proxsave", Some("proxsave")),
            ("0 2 * * * cd /opt/proxmox-backup&&./x", Some("/opt/proxmox-backup")),
            ("0 2 * * * systemctl restart proxmox-backup", None),
            ("0 2 * * * proxmox-backup-client backup", None),
            ("0 2 * * * /opt/proxsave-notes/x", None),
        ] {
            assert_eq!(named_in(line), expected, "{line}");
        }
    }
}
