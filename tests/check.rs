//! What `check` sees: planted faults on golden hosts, and what of a host is in no backup.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::fs;
use std::os::unix::fs::symlink;

use common::TestHost;
use pbx_config::model::report::Exit;
use serde_json::Value;

const ALL_HOSTS: [&str; 5] = ["pve-single", "pve-cluster", "pbs", "both", "bare"];

/// `WHY FILES PATH` of every place.
fn places(host: &TestHost) -> Vec<String> {
    let done = host.run(&["check", "--complete", "--json"]);
    let coverage = done.json();
    let place = |place: &Value| {
        let path = String::from_utf8_lossy(place["path"].as_str().unwrap().as_bytes()).into_owned();
        let by = place["by"].as_str().map(|by| format!(" by {by}")).unwrap_or_default();
        format!("{} {} {path}{by}", place["why"].as_str().unwrap(), place["files"])
    };
    let places: Vec<String> = coverage["places"].as_array().unwrap().iter().map(place).collect();
    done.exits(if places.is_empty() { Exit::Ok } else { Exit::Problems });
    places
}

#[test]
fn nothing_of_a_golden_host_is_unexplained() {
    for name in ALL_HOSTS {
        let host = TestHost::golden(name);
        assert_eq!(places(&host), Vec::<String>::new(), "{name}");
        let report = host.run(&["backup", "--json"]).json();
        assert_eq!(report["snapshot"]["counts"]["unexplained"], 0, "{name}");
    }
}

#[test]
fn what_is_in_no_backup_is_listed_with_its_reason() {
    let host = TestHost::golden("pve-single");
    // A package with a file as it came, one that was changed, one of an older version, and a link.
    host.write(
        "var/lib/dpkg/info/tool.list",
        "/.\n/etc\n/etc/tool.conf\n/etc/tool-link\n/lib/systemd/system/tool.service\n",
    );
    let status = fs::read_to_string(host.root.join("var/lib/dpkg/status")).unwrap();
    let conffiles = "Conffiles:\n /etc/same.conf b1946ac92492d2347c6235b4d2611184\n \
                     /etc/changed.conf b1946ac92492d2347c6235b4d2611184\n";
    host.write("var/lib/dpkg/status", status + "\nPackage: tool\nStatus: install ok installed\n" + conffiles);
    host.write("etc/tool.conf", "x");
    symlink("/usr/share/tool", host.root.join("etc/tool-link")).unwrap();
    host.write("etc/same.conf", "hello\n");
    host.write("etc/changed.conf", "hello, world\n");
    host.write("etc/changed.conf.dpkg-dist", "hello\n");
    // Nobody's.
    host.write("etc/app/app.conf", "x");
    host.write("etc/app/sub/more.conf", "x");
    host.write("usr/local/share/app/data", "x");
    host.write("usr/local/bin/tool", "x");
    // Named by a unit that is saved, by one that is enabled from elsewhere, and by cron.
    host.write("srv/app/run", "x");
    host.write("srv/app/env", "x");
    host.write("srv/app/never-named", "x");
    host.write(
        "etc/systemd/system/app.service",
        "[Service]\nExecStart=/srv/app/run -v\nEnvironmentFile=-/srv/app/env\n",
    );
    host.write("lib/systemd/system/own.service", "x");
    host.write("lib/systemd/system/tool.service", "x");
    let wants = host.root.join("etc/systemd/system/multi-user.target.wants");
    fs::create_dir_all(&wants).unwrap();
    symlink("/lib/systemd/system/own.service", wants.join("own.service")).unwrap();
    symlink("/lib/systemd/system/tool.service", wants.join("tool.service")).unwrap();
    host.write("opt/scripts/nightly", "x");
    host.write("etc/cron.d/nightly", "1 2 * * * root /opt/scripts/nightly >/dev/null\n");
    assert_eq!(
        places(&host),
        [
            "unknown 2 etc/app",
            "changed 1 etc/changed.conf",
            "unknown 1 usr/local/share/app/data",
            "named 1 srv/app/run by /etc/systemd/system/app.service",
            "named 1 srv/app/env by /etc/systemd/system/app.service",
            "named 1 lib/systemd/system/own.service by \
             /etc/systemd/system/multi-user.target.wants/own.service",
            "named 1 opt/scripts/nightly by /etc/cron.d/nightly",
        ]
    );
    let text = host.run(&["check", "--complete"]).exits(Exit::Problems).out;
    assert!(text.contains("named        1  /srv/app/run  (by /etc/systemd/system/app.service)"), "{text}");
    let report = host.run(&["backup"]).out;
    assert!(report.contains("missing   8 files of this host"), "{report}");

    // Each is settled by its name.
    host.configure(
        "backup: main\n\tinclude /etc/app\n\tinclude /srv/app/run\n\texclude /etc/changed.conf\n\
         \texclude /usr/local/share/app\n\texclude /srv/app/env\n\texclude /opt/scripts\n\
         \tinclude /lib/systemd/system/own.service\n",
    );
    assert_eq!(places(&host), Vec::<String>::new());
}

#[test]
fn a_hook_script_that_a_guest_names_is_asked_for_where_its_storage_is_this_hosts_own() {
    let host = TestHost::golden("pve-single");
    let pve = host.beside("pve");
    common::copy_tree(&common::golden("pve-single").join("pve"), &pve);
    let guests = pve.join("nodes/pve1/qemu-server");
    fs::create_dir_all(&guests).unwrap();
    let storages = fs::read_to_string(pve.join("storage.cfg")).unwrap();
    // The storage does not say that it holds snippets, so that no row takes its folder.
    let more = "\ndir: plain\n\tpath /srv/plain\n\tcontent images\n\nnfs: far\n\tpath /mnt/pve/far\n\tserver x\n\texport /x\n";
    fs::write(pve.join("storage.cfg"), storages + more).unwrap();
    fs::write(
        guests.join("999.conf"),
        "hookscript: plain:snippets/a.pl\ncicustom: user=far:snippets/u.yml,meta=plain:snippets/m.yml\n[old]\n\
         hookscript: plain:snippets/old.pl\n",
    )
    .unwrap();
    for name in ["a.pl", "m.yml", "old.pl"] {
        host.write(&format!("srv/plain/snippets/{name}"), "x");
    }
    host.write("mnt/pve/far/snippets/u.yml", "x");
    fs::remove_file(host.database()).unwrap();
    common::make_database(&host.database(), &pve);
    let by = "by /etc/pve/nodes/pve1/qemu-server/999.conf";
    assert_eq!(
        places(&host),
        [format!("named 1 srv/plain/snippets/a.pl {by}"), format!("named 1 srv/plain/snippets/m.yml {by}")]
    );
}

#[test]
fn a_run_for_a_part_says_nothing_of_the_rest_and_a_row_that_is_skipped_is_left_out_by_name() {
    let host = TestHost::golden("pve-single");
    let part = host.run(&["backup", "--only", "network", "--json"]).json();
    assert_eq!(part["snapshot"]["counts"].get("unexplained"), None);
    host.configure("backup: main\n\tskip network\n\tskip pve-other\n\tskip mount-secrets\n");
    assert_eq!(places(&host), Vec::<String>::new());
}

#[test]
fn a_host_without_dpkg_is_told_nothing_about_packages() {
    let host = TestHost::golden("bare");
    fs::remove_file(host.root.join("var/lib/dpkg/status")).unwrap();
    let said = host.run(&["check", "--complete"]).ok().out;
    assert!(said.contains("cannot be told"), "{said}");
    let report = host.run(&["backup", "--json"]).json();
    assert_eq!(report["snapshot"]["counts"].get("unexplained"), None);
}
