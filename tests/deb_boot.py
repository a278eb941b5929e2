"""A host that is really booted: systemd as process 1 in a container, timers that fire, services that run."""

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from deb_chroot import PACKAGE, PROJECT, Root, deb, sh
from deb_life import SERVICES, TIMERS, dress, newer

BOOT_S = 90
DOUBLE = PROJECT / "target/debug/examples/pmxcfs-double"
FROZEN = "/mnt/frozen"


class Host:
    """A PVE host of tests/hosts, booted; /etc/pve is a real FUSE mount by the double of pmxcfs."""

    def __init__(self, suite, hostname="pve1"):
        self.root = Root(suite, hostname, tools=True)
        shutil.copy(DOUBLE, self.root.path("usr/local/sbin/pmxcfs-double"))
        self.log = (self.root.work / "console").open("w")
        self.process = None

    def __enter__(self):
        try:
            return self.boot()
        except BaseException:
            self.__exit__()
            raise

    def boot(self):
        self.process = subprocess.Popen(
            ["systemd-nspawn", "--quiet", "--directory", self.root.dir, "--boot", "--register=no", "--keep-unit",
             "--bind=/dev/fuse", "--private-network", "--capability=all", f"--hostname={self.root.hostname}", "--console=pipe"],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        deadline = time.monotonic() + BOOT_S
        while time.monotonic() < deadline and self.process.poll() is None:
            if self.leader() and self.run("systemctl is-system-running", check=False).stdout.strip() in ("running", "degraded"):
                return self
            time.sleep(0.3)
        raise AssertionError("systemd did not boot:\n" + Path(self.log.name).read_text()[-3000:])

    def leader(self):
        """The container's process 1, as this machine counts."""
        try:
            children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        except OSError:
            return None
        return next((int(pid) for pid in children if b"systemd" in Path(f"/proc/{pid}/cmdline").read_bytes()[:40]
                     or b"init" in Path(f"/proc/{pid}/cmdline").read_bytes()[:40]), None)

    def __exit__(self, *_):
        leader = self.process and self.leader()
        if leader:
            # Poweroff by signal, as systemd takes it.
            os.kill(leader, signal.SIGRTMIN + 4)
        if self.process:
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.log.close()
        self.root.__exit__()

    def run(self, command, check=True, timeout=120):
        env = {"PATH": "/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "HOME": "/root",
               "DEBIAN_FRONTEND": "noninteractive"}
        return sh("nsenter", "--target", self.leader(), "--all", "--root", "/bin/sh", "-c", command, check=check,
                  timeout=timeout, env=env)

    def install(self, file=None):
        return self.run(f"apt-get -y -q -o Dpkg::Options::=--force-confold install {self.root.take(file or deb())}", timeout=300)

    def show(self, unit, name):
        return self.run(f"systemctl show --value --property={name} {unit}").stdout.strip()

    def start(self, unit, check=True):
        done = self.run(f"systemctl start {unit}", check=False, timeout=300)
        if check and done.returncode != 0:
            raise AssertionError(done.stdout + self.journal(unit))
        return done

    def journal(self, unit):
        return self.run(f"journalctl --no-pager --boot -o cat -u {unit}").stdout

    def ran(self, unit):
        return "Starting" in self.journal(unit)

    def drop_in(self, unit, text):
        """What `systemctl edit` does, until the next boot."""
        self.run(f"mkdir -p /run/systemd/system/{unit}.d && cat >/run/systemd/system/{unit}.d/50-test.conf <<'EOF'\n{text}\nEOF\n"
                 "systemctl daemon-reload")

    def take_back(self, unit):
        self.run(f"rm -r /run/systemd/system/{unit}.d && systemctl daemon-reload")

    def mount_pve(self):
        # In a unit of its own: what nsenter starts would be taken for part of the test.
        self.run("systemd-run --quiet --unit=pmxcfs-double --property=Type=forking pmxcfs-double --mount /etc/pve "
                 f"--db /var/lib/pve-cluster/config.db --node {self.root.hostname} --pidfile /run/pve-cluster.pid")

    def kill_pve(self, name):
        self.run(f"systemctl kill --signal={name} pmxcfs-double")

    def newest(self):
        """The manifest of the newest snapshot."""
        return json.loads(self.run("pbx-config list --json").stdout)["snapshots"][0]["snapshot"]

    def snapshots(self):
        return self.root.snapshots()


def boots(suite):
    if not DOUBLE.exists():
        sh("cargo", "build", "--quiet", "--locked", "--example", "pmxcfs-double", cwd=PROJECT, timeout=3600)
    try:
        with Host(suite):
            return True
    except (AssertionError, OSError, subprocess.SubprocessError) as error:
        print(error)
        return False


# What the state rows say of the moment, not of the host: times, counters, use of disks, and lsblk's mount points (see
# debian/sandbox.conf).
OF_THE_MOMENT = {"timedatectl.txt", "timers.json", "services.json", "lsblk.json", "sysctl.txt"}
# Mounts where proxmox-boot-tool does: in a mount namespace of its own.
BOOT_TOOL = """#!/bin/sh
[ "$1" = status ] || exit 0
exec unshare --mount sh -c 'mount -t tmpfs esp /mnt && touch /mnt/EFI && ls /mnt'
"""


def timers_run_from_the_installation_on_and_no_backup_does(suite):
    with Host(suite) as host:
        host.install()
        time.sleep(3)
        for timer in TIMERS:
            assert host.run(f"systemctl is-active {timer}", check=False).stdout.strip() == "active", timer
            assert host.show(timer, "NextElapseUSecRealtime"), f"{timer} will never fire"
            assert (host.root.path(f"var/lib/systemd/timers/stamp-{timer}")).exists(), "no stamp: Persistent could fire"
        for service in SERVICES:
            assert not host.ran(service), host.journal(service)
        assert not host.snapshots()


def the_service_saves_what_a_run_by_hand_saves(suite):
    with Host(suite) as host:
        dress(host.root, "pve-single")
        host.root.write("usr/sbin/proxmox-boot-tool", BOOT_TOOL, 0o755)
        host.run("nft add table inet pbx_test")
        host.install()
        host.mount_pve()
        trees = {}
        for name in ("hand", "service"):
            if name == "hand":
                host.run("pbx-config backup")
            else:
                host.start(f"{PACKAGE}.service")
                assert host.show(f"{PACKAGE}.service", "ExecMainStatus") == "0", host.journal(f"{PACKAGE}.service")
            host.run(f"pbx-config restore latest --to /srv/{name}")
            trees[name] = host.root.path(f"srv/{name}")
            (file,) = host.snapshots()
            file.unlink()
        files = {name: {str(path.relative_to(tree)) for path in tree.rglob("*")} for name, tree in trees.items()}
        assert files["hand"] == files["service"], files["hand"] ^ files["service"]
        assert "etc/pve/storage.cfg" in files["service"] and "root/.ssh/id_rsa" in files["service"], sorted(files["service"])
        for path in sorted(files["hand"]):
            one, other = (tree / path for tree in trees.values())
            if path.startswith(".pbx") and path.rsplit("/", 1)[-1] in OF_THE_MOMENT:
                continue
            if one.is_symlink() or not one.is_file() or path.startswith("var/lib/pve-cluster"):
                continue
            assert one.read_bytes() == other.read_bytes(), f"{path}:\n{one.read_bytes()[:900]}\n{other.read_bytes()[:900]}"
        state = trees["service"] / ".pbx/state"
        assert "pbx_test" in (state / "nft.txt").read_text()
        assert "EFI" in (state / "proxmox-boot-tool.txt").read_text()
        return f"{len(files['service'])} entries"


def every_service_ends_well_and_says_who_asked(suite):
    with Host(suite) as host:
        host.install()
        for service in SERVICES:
            # A oneshot's own default: for ever.
            assert host.show(service, "TimeoutStartUSec") != "infinity", service
        # As vzdump runs it: nothing in the environment, nothing to read. It does not wait for the backup.
        hook = f"/usr/share/{PACKAGE}/hooks/vzdump-hook"
        host.run(f"env -i LC_ALL=C {hook} job-start </dev/null && env -i LC_ALL=C {hook} backup-end snapshot 100 </dev/null")
        assert not host.ran(f"{PACKAGE}-vzdump.service"), "started before the job's end"
        began = time.monotonic()
        host.run(f"env -i LC_ALL=C {hook} job-end </dev/null", timeout=10)
        took = time.monotonic() - began
        wait_for(lambda: "Finished" in host.journal(f"{PACKAGE}-vzdump.service"), host)
        assert host.newest()["trigger"] == "vzdump", host.newest()
        host.start(f"{PACKAGE}-verify.service")
        assert host.ran(f"{PACKAGE}-verify.service") and host.show(f"{PACKAGE}-verify.service", "ExecMainStatus") == "0"
        # Damage is a failed unit: that is what monitoring sees.
        (file,) = host.snapshots()
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
        host.start(f"{PACKAGE}-verify.service", check=False)
        assert host.show(f"{PACKAGE}-verify.service", "Result") == "exit-code"
        return f"the hook waited {took:.2f} s"


def the_timer_really_fires(suite):
    with Host(suite) as host:
        host.install()
        host.drop_in(f"{PACKAGE}.timer", "[Timer]\nOnCalendar=\nOnCalendar=*:*:0/5\nRandomizedDelaySec=0\nAccuracySec=100ms")
        host.run(f"systemctl restart {PACKAGE}.timer")
        wait_for(host.snapshots, host)
        host.run(f"systemctl stop {PACKAGE}.timer")
        wait_for(lambda: host.show(f"{PACKAGE}.service", "ActiveState") == "inactive", host)
        assert host.newest()["trigger"] == "timer"


def a_run_beside_another_is_no_failure(suite):
    with Host(suite) as host:
        host.install()
        host.run(f"mkdir -p -m 0700 /run/{PACKAGE} && systemd-run --quiet --unit=holder flock /run/{PACKAGE}/lock sleep 300")
        wait_for(lambda: host.run(f"flock -n /run/{PACKAGE}/lock true", check=False).returncode, host)
        host.start(f"{PACKAGE}.service")
        assert host.show(f"{PACKAGE}.service", "ExecMainStatus") == "11"
        assert host.run("systemctl --failed --no-legend --plain").stdout.strip() == ""


def a_store_that_hangs_ends_the_run(suite):
    """A FUSE file system whose daemon is stopped, under the limits of the unit made short."""
    with Host(suite) as host:
        host.install()
        host.run(f"mkdir -p {FROZEN} /var/lib/frozen && systemd-run --quiet --unit=frozen --property=Type=forking "
                 f"pmxcfs-double --mount {FROZEN} --db /var/lib/frozen/db --node {host.root.hostname} --pidfile /run/frozen.pid")
        host.root.write("etc/proxmox-backup-extra/pbx-config.cfg", f"dir: local\n\tpath {FROZEN}/store\n")
        host.run("systemctl kill --signal=STOP frozen")
        host.drop_in(f"{PACKAGE}.service", "[Service]\nTimeoutStartSec=4\nTimeoutStopSec=3")
        began = time.monotonic()
        done = host.start(f"{PACKAGE}.service", check=False)
        took = time.monotonic() - began
        assert done.returncode != 0 and took < 60, (done.stdout, took)
        result = host.show(f"{PACKAGE}.service", "Result")
        assert result in ("timeout", "exit-code"), result
        assert host.run("grep -lx pbx-config /proc/[0-9]*/comm", check=False).stdout == "", "it still runs"
        host.run("systemctl kill --signal=CONT frozen")
        return f"{result} after {took:.1f} s"


def a_frozen_or_dead_pmxcfs_stops_no_backup(suite):
    """Nor does it stop systemd from setting up the sandbox, which has /etc/pve in it."""
    with Host(suite) as host:
        dress(host.root, "pve-single")
        host.install()
        host.mount_pve()
        for name in ("STOP", "KILL"):
            host.kill_pve(name)
            host.start(f"{PACKAGE}.service")
            assert host.show(f"{PACKAGE}.service", "ExecMainStatus") == "3", host.journal(f"{PACKAGE}.service")
            saved = host.run("pbx-config cat latest etc/pve/storage.cfg").stdout
            assert "dir: local" in saved, saved


def an_upgrade_keeps_what_an_admin_switched_off(suite):
    with Host(suite) as host, tempfile.TemporaryDirectory() as folder:
        host.install()
        host.run(f"systemctl disable --now {TIMERS[1]} && systemctl mask --now {TIMERS[0]}")
        host.install(newer(folder))
        for timer in TIMERS:
            assert host.run(f"systemctl is-active {timer}", check=False).stdout.strip() != "active", timer
        host.run(f"systemctl unmask {TIMERS[0]} && systemctl enable --now {' '.join(TIMERS)}")
        host.install(newer(folder, version="99.1-1"))
        for timer in TIMERS:
            assert host.run(f"systemctl is-active {timer}", check=False).stdout.strip() == "active", timer
        assert not host.snapshots(), "an upgrade made a backup"


def removal_stops_it_and_installing_again_after_weeks_runs_nothing(suite):
    with Host(suite) as host:
        host.install()
        host.run(f"apt-get -y -q remove {PACKAGE}")
        for timer in TIMERS:
            assert host.run(f"systemctl is-active {timer}", check=False).stdout.strip() in ("inactive", "unknown"), timer
        assert host.run("systemctl --failed --no-legend --plain").stdout.strip() == ""
        stamps = [host.root.path(f"var/lib/systemd/timers/stamp-{timer}") for timer in TIMERS]
        assert not any(stamp.exists() for stamp in stamps)
        host.install()
        time.sleep(3)
        for timer in TIMERS:
            assert host.run(f"systemctl is-active {timer}", check=False).stdout.strip() == "active", timer
        for service in SERVICES:
            assert not host.ran(service), host.journal(service)
        host.run(f"apt-get -y -q purge {PACKAGE}")
        assert not any(stamp.exists() for stamp in stamps)
        assert host.run("systemctl --failed --no-legend --plain").stdout.strip() == ""


def wait_for(what, host, limit_s=60):
    deadline = time.monotonic() + limit_s
    while not what():
        assert time.monotonic() < deadline, host.run("journalctl --no-pager -n 40").stdout
        time.sleep(0.3)


BOOT_TESTS = [
    timers_run_from_the_installation_on_and_no_backup_does,
    the_service_saves_what_a_run_by_hand_saves,
    every_service_ends_well_and_says_who_asked,
    the_timer_really_fires,
    a_run_beside_another_is_no_failure,
    a_store_that_hangs_ends_the_run,
    a_frozen_or_dead_pmxcfs_stops_no_backup,
    an_upgrade_keeps_what_an_admin_switched_off,
    removal_stops_it_and_installing_again_after_weeks_runs_nothing,
]
