//! Onto a live system: what a plan says, that exactly that is done, and that undo leaves no trace.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::TestHost;
use pbx_config::model::report::Exit;

fn saved(name: &str) -> TestHost {
    let host = TestHost::golden(name);
    if name != "pbs" && name != "bare" {
        host.mount(&[]);
    }
    host.run(&["backup"]);
    host
}

#[test]
fn the_plan_of_an_unchanged_host_has_no_step() {
    for name in ["bare", "pbs", "pve-single", "pve-cluster", "both"] {
        let host = saved(name);
        let plan = host.run(&["restore", "latest", "--dry-run", "--json"]).exits(Exit::Ok).json();
        assert_eq!(plan["steps"], serde_json::json!([]), "{name}");
        assert!(plan["unchanged"].as_u64().unwrap() > 10, "{name}");
        assert_eq!(plan["differences"], serde_json::json!([]), "{name}");
    }
}
