//! Mounts and encrypted volumes: only those whose device is here. Not here: looking for it.

use super::{MergeContext, Merged, add, lines, words};
use crate::catalog::restore::merges::{self, BOOT_MOUNTS, DEVICE_TAGS, Merge, NO_DEVICE, REMOTE};

/// The devices that the lines of fstab and crypttab need, to be looked for: as they stand there, without quotes.
pub fn devices(path: &str, saved: &[u8]) -> Vec<String> {
    let number = match merges::of(path) {
        Merge::Mounts => 0,
        Merge::EncryptedVolumes => 1,
        _ => return Vec::new(),
    };
    let device = |line: &[u8]| Some(String::from_utf8_lossy(words(line).nth(number)?).replace('"', ""));
    let mut found: Vec<String> =
        lines(saved).filter_map(device).filter(|device| device_path(device).is_some()).collect();
    found.sort();
    found.dedup();
    found
}

/// Returns the path where a device would be found: `UUID=…` and the like below /dev/disk. None: it is not a device.
pub fn device_path(device: &str) -> Option<String> {
    let tagged = DEVICE_TAGS
        .iter()
        .find_map(|(tag, folder)| Some(format!("{folder}{}", device.strip_prefix(tag)?.strip_prefix('=')?)));
    tagged
        .or_else(|| device.starts_with('/').then(|| device.to_owned()))
        .filter(|path| !path.starts_with("//"))
}

/// A line of fstab.
struct Mount {
    device: String,
    point: String,
    kind: String,
    options: String,
}

impl Mount {
    fn parse(line: &[u8]) -> Option<Self> {
        let mut words = words(line).map(|word| String::from_utf8_lossy(word).replace('"', ""));
        Some(Self {
            device: words.next()?,
            point: words.next()?,
            kind: words.next()?,
            options: words.next().unwrap_or_default(),
        })
    }

    fn is_swap(&self) -> bool {
        self.kind == "swap"
    }

    fn has_point_of(&self, other: &Self) -> bool {
        trimmed(&self.point) == trimmed(&other.point)
    }

    /// Reports whether it can be mounted without a device of this host.
    fn needs_none(&self) -> bool {
        REMOTE.iter().any(|start| self.device.starts_with(start))
            || NO_DEVICE.contains(&self.kind.as_str())
            || self.options.split(',').any(|option| matches!(option, "bind" | "rbind"))
            || device_path(&self.device).is_none()
    }

    /// Returns the reason why it is left out beside the mounts that are here. None: it can be added.
    fn obstacle(&self, here: &[Self], world: &MergeContext) -> Option<String> {
        if BOOT_MOUNTS.contains(&trimmed(&self.point)) {
            return Some("this host boots from its own".to_owned());
        }
        if let Some(other) = here.iter().find(|other| !self.is_swap() && other.has_point_of(self)) {
            return Some(format!("{} is mounted there here", other.device));
        }
        let is_missing = !self.needs_none() && !world.devices.contains(&self.device);
        is_missing.then(|| "no such device is here".to_owned())
    }
}

pub(crate) fn mounts(live: &[u8], saved: &[u8], world: &MergeContext) -> Merged {
    let mut here: Vec<Mount> = lines(live).filter_map(Mount::parse).collect();
    let mut notes = Vec::new();
    let mut new = Vec::new();

    for line in lines(saved) {
        let Some(mount) = Mount::parse(line) else { continue };
        let is_here =
            |other: &Mount| other.device == mount.device && (mount.is_swap() || other.has_point_of(&mount));
        if here.iter().any(is_here) {
            continue;
        }
        if let Some(why) = mount.obstacle(&here, world) {
            let Mount { device, point, kind, .. } = mount;
            notes.push(format!("{device} on {point} ({kind}) was left out: {why}"));
        } else {
            new.push(line);
            here.push(mount);
        }
    }
    Merged { content: add(live, new.into_iter()), notes }
}

fn trimmed(point: &str) -> &str {
    if point.len() > 1 { point.trim_end_matches('/') } else { point }
}

pub(crate) fn volumes(live: &[u8], saved: &[u8], world: &MergeContext) -> Merged {
    let parse = |line: &[u8]| -> Option<[String; 2]> {
        let mut words = words(line).map(|word| String::from_utf8_lossy(word).replace('"', ""));
        Some([words.next()?, words.next()?])
    };
    let here: Vec<[String; 2]> = lines(live).filter_map(parse).collect();
    let mut notes = Vec::new();
    let mut new = Vec::new();

    for line in lines(saved) {
        let Some([target, device]) = parse(line) else { continue };
        if here.contains(&[target.clone(), device.clone()]) {
            continue;
        }
        let why = if here.iter().any(|[other, _]| *other == target) {
            Some("another device has this name here")
        } else if device_path(&device).is_some() && !world.devices.contains(&device) {
            Some("no such device is here")
        } else {
            None
        };
        match why {
            Some(why) => notes.push(format!("'{target}' of {device} was left out: {why}")),
            None => new.push(line),
        }
    }
    Merged { content: add(live, new.into_iter()), notes }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::merge;
    use super::super::tests::text;
    use super::*;

    #[test]
    fn a_mount_is_added_only_where_its_device_is() {
        let live = "UUID=1 / ext4 defaults 0 1\nUUID=2 /mnt/a ext4 defaults 0 2";
        let saved = "# old\nUUID=9 / ext4 defaults 0 1\nUUID=3 /mnt/a/ ext4 defaults 0 2\nUUID=4 /mnt/b ext4 nofail 0 2\n\
            LABEL=gone /mnt/c xfs defaults 0 0\n//nas/x /mnt/d cifs credentials=/root/.c,password=S3CRET 0 0\n\
            nas:/x /mnt/e nfs4 defaults 0 0\n/srv/x /mnt/f none bind 0 0\n/dev/mapper/d /mnt/g ext4 defaults 0 0\n\
            UUID=5 none swap sw 0 0\nUUID=6 none swap sw 0 0\nUUID=9 /boot/efi vfat defaults 0 0\n\
            UUID=4 /mnt/b ext4 nofail 0 2\ntmpfs /tmp tmpfs defaults 0 0\n";
        let wanted = devices("etc/fstab", saved.as_bytes());
        assert_eq!(
            wanted,
            ["/dev/mapper/d", "/srv/x", "LABEL=gone", "UUID=3", "UUID=4", "UUID=5", "UUID=6", "UUID=9"]
        );
        assert_eq!(device_path("PARTLABEL=x").unwrap(), "/dev/disk/by-partlabel/x");
        assert_eq!(device_path("nas:/x"), None);
        let here = ["UUID=4", "UUID=5", "UUID=9", "/dev/mapper/d"];
        let world = MergeContext { devices: here.map(str::to_owned).into(), ..MergeContext::default() };
        let merged = merge("etc/fstab", live.as_bytes(), saved.as_bytes(), &world);
        assert_eq!(
            text(&merged.content),
            format!(
                "{live}\nUUID=4 /mnt/b ext4 nofail 0 2\n//nas/x /mnt/d cifs credentials=/root/.c,password=S3CRET 0 0\n\
                 nas:/x /mnt/e nfs4 defaults 0 0\n/srv/x /mnt/f none bind 0 0\n/dev/mapper/d /mnt/g ext4 defaults 0 0\n\
                 UUID=5 none swap sw 0 0\ntmpfs /tmp tmpfs defaults 0 0\n"
            )
        );
        assert_eq!(
            merged.notes,
            [
                "UUID=9 on / (ext4) was left out: this host boots from its own",
                "UUID=3 on /mnt/a/ (ext4) was left out: UUID=2 is mounted there here",
                "LABEL=gone on /mnt/c (xfs) was left out: no such device is here",
                "UUID=6 on none (swap) was left out: no such device is here",
                "UUID=9 on /boot/efi (vfat) was left out: this host boots from its own",
            ]
        );
        let again = merge("etc/fstab", &merged.content, saved.as_bytes(), &world);
        assert_eq!(again.content, merged.content);
    }

    #[test]
    fn an_encrypted_volume_is_added_only_where_its_device_is() {
        let saved =
            b"data UUID=3 /etc/luks-keys/d luks\nswap /dev/sdz /dev/urandom swap\nold UUID=1 none luks\n";
        assert_eq!(devices("etc/crypttab", saved), ["/dev/sdz", "UUID=1", "UUID=3"]);
        let world = MergeContext {
            devices: ["UUID=3".to_owned(), "UUID=1".to_owned()].into(),
            ..MergeContext::default()
        };
        let merged = merge("etc/crypttab", b"old UUID=8 none luks\n", saved, &world);
        assert_eq!(text(&merged.content), "old UUID=8 none luks\ndata UUID=3 /etc/luks-keys/d luks\n");
        assert_eq!(merged.notes.len(), 2);
    }
}
