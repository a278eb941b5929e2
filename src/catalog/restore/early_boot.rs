//! Files that a boot reads before anything of ours can run, and the commands that make it read them again.

use std::path::Path;

pub struct Early {
    /// Folders and files, without the first slash.
    places: &'static [&'static str],
    pub again: &'static [&'static [&'static str]],
}

impl Early {
    pub fn meets(&self, path: &Path) -> bool {
        self.places.iter().any(|place| path.starts_with(place))
    }
}

/// The commands in the order they are done.
pub const READ_EARLY: [Early; 3] = [
    // Units and what generators make of the mounts: read by process 1 as its first.
    Early {
        places: &["etc/systemd/system", "etc/fstab", "etc/crypttab"],
        again: &[&["systemctl", "daemon-reload"]],
    },
    // Names of network cards: given by udev as it meets them; as long as they are down they take another.
    Early {
        places: &["etc/systemd/network", "usr/local/lib/systemd/network", "etc/udev"],
        again: &[
            &["udevadm", "control", "--reload"],
            &["udevadm", "trigger", "--action=add", "--subsystem-match=net", "--settle"],
        ],
    },
    Early { places: &["etc/sysctl.conf", "etc/sysctl.d"], again: &[&["sysctl", "--quiet", "--system"]] },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_met_by_what_lies_in_it_and_by_no_name_that_begins_alike() {
        let met = |path: &str| READ_EARLY.iter().filter(|place| place.meets(Path::new(path))).count();
        assert_eq!(met("etc/systemd/network/10-lan.link"), 1);
        assert_eq!(met("etc/sysctl.d/local.conf"), 1);
        assert_eq!(met("etc/fstab"), 1);
        assert_eq!(met("etc/fstab.old"), 0);
        assert_eq!(met("etc/network/interfaces"), 0);
    }
}
