"""Restores on a booted host, as an admin does them: armed, confirmed from a real login, and met by reboots and power cuts."""

import json
import os
import re
import shlex
import signal
import subprocess
import time
from pathlib import Path

from deb_boot import Host, wait_for
from deb_chroot import sh
from deb_life import dress

ARMED = "var/lib/proxmox-backup-extra/undo/armed.json"
EARLY, LATE = "pbx-config-armed.service", "pbx-config-armed-late.service"
LOOPBACK = "auto lo\niface lo inet loopback\n"
# As the snapshot has it: what `ifreload` makes of it is seen in the kernel.
BRIDGE = LOOPBACK + "\nauto vmbr9\niface vmbr9 inet static\n\taddress 10.9.9.1/24\n\tbridge-ports none\n"
# Of tests/hosts/pve-single, one rule added.
PVE_FIREWALL = "etc/pve/firewall/cluster.fw"
SSH = "ssh -q -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -i /root/.ssh/test root@127.0.0.1 "
RESTORE = "pbx-config restore latest --yes --only network,ssh"
# All that a restore promises to put back, of what these tests touch.
STAT = "stat --printf '%n %F %U %G %a %Y %s\\n'"


class Admin(Host):
    """A host one logs in to over ssh, with a snapshot of what it was before somebody changed it."""

    def __init__(self, suite, audit=True, pve=False):
        super().__init__(suite)
        if not audit:
            # As in many containers: the kernel numbers no login.
            pam = self.root.path("etc/pam.d/sshd")
            pam.write_text("".join(line for line in pam.open() if "pam_loginuid" not in line))
        self.root.write("etc/network/interfaces", BRIDGE)
        if pve:
            dress(self.root, "pve-single")
            self.root.write("etc/network/interfaces", BRIDGE)
            self.root.write("etc/systemd/system/pve-cluster.service", PVE_CLUSTER.replace("NODE", self.root.hostname))
            self.root.write("etc/systemd/system/pve-firewall.service", PVE_FIREWALL_UNIT)
            for unit in ("pve-cluster", "pve-firewall"):
                link = self.root.path(f"etc/systemd/system/multi-user.target.wants/{unit}.service")
                link.symlink_to(f"/etc/systemd/system/{unit}.service")

    def boot(self):
        super().boot()
        if not self.root.path("root/.ssh/test").exists():
            self.run("mkdir -p -m 0700 /root/.ssh && ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/test && "
                     "cat /root/.ssh/test.pub >>/root/.ssh/authorized_keys && systemctl restart networking")
            self.install()
            self.run("pbx-config backup", check=False)
            assert self.snapshots()
            self.change()
        return self

    def change(self):
        """What stands there when the restore comes, with modes and times of its own."""
        self.root.write("etc/network/interfaces", LOOPBACK, 0o640)
        with self.root.path("etc/ssh/sshd_config").open("a") as file:
            file.write("# changed\n")
        self.run("chmod 0600 /etc/ssh/sshd_config && touch -d '2024-02-03 04:05:06.789' /etc/ssh/sshd_config && "
                 "touch -d '2023-02-03 04:05:06.5' /etc/network/interfaces && ifreload -a && systemctl restart ssh")

    def picture(self):
        return self.run(f"cd / && {STAT} etc/network etc/network/interfaces etc/ssh etc/ssh/* && sha256sum "
                        "etc/network/interfaces etc/ssh/sshd_config").stdout

    def assert_picture(self, before):
        now = self.picture()
        assert now == before, set(now.splitlines()) ^ set(before.splitlines())

    def login(self, command, **more):
        return self.run(SSH + shlex.quote(command), **more)

    def log_in(self, command):
        """A login of its own that goes on."""
        words = ["nsenter", "--target", str(self.leader()), "--all", "--root", "/bin/sh", "-c", SSH + shlex.quote(command)]
        return subprocess.Popen(words, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def armed(self):
        return self.root.path(ARMED).exists()

    def arm(self, words):
        """The login in which it is typed; once all of it is written."""
        login = self.log_in(f"{RESTORE} {words}")
        wait_for(lambda: self.armed() or login.poll() is not None, self)
        assert self.armed(), login.communicate()[0]
        wait_for(self.is_restored, self)
        return login

    def is_restored(self):
        journals = sorted(self.root.path("var/lib/proxmox-backup-extra/undo").glob("*/journal"))
        return "done\n" in journals[-1].read_text()

    def waiting(self):
        """The unit that waits; None when there is none."""
        listed = self.run("systemctl list-units --no-legend --plain 'pbx-config-armed-2*'").stdout.split()
        return listed[0] if listed else None

    def bridge(self):
        return "10.9.9.1" in self.run("ip -4 -o address").stdout

    def power_cut(self):
        """No process gets to say a word."""
        os.kill(self.leader(), signal.SIGKILL)
        self.process.wait(30)
        self.boot()

    def reboot(self):
        """As an admin asks for it; how long it took to go down. nspawn leaves the starting to who called it."""
        began = time.monotonic()
        self.run("systemctl reboot", check=False)
        self.process.wait(200)
        took = time.monotonic() - began
        self.boot()
        return took

    def assert_order(self, first, then):
        """The first unit had ended when the other began, in this boot."""
        ended = int(self.show(first, "ExecMainExitTimestampMonotonic"))
        began = int(self.show(then, "ExecMainStartTimestampMonotonic"))
        assert 0 < ended <= began, (first, ended, then, began)


PVE_CLUSTER = """[Unit]
Description=The double of pmxcfs
[Service]
Type=forking
ExecStart=/usr/local/sbin/pmxcfs-double --mount /etc/pve --db /var/lib/pve-cluster/config.db --node NODE --pidfile /run/pve-cluster.pid
[Install]
WantedBy=multi-user.target
"""
PVE_FIREWALL_UNIT = """[Unit]
Description=Reads the firewall's rules as it starts
After=pve-cluster.service
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/cp /etc/pve/firewall/cluster.fw /run/cluster.fw
[Install]
WantedBy=multi-user.target
"""


def nobody_confirms_and_a_unit_of_systemd_undoes_it(suite):
    with Admin(suite) as host:
        before, pid = host.picture(), host.show("ssh", "MainPID")
        login = host.arm("--confirm-within 12s")
        unit = host.waiting()
        assert unit and host.show(unit, "ActiveState") == "active", unit
        # Restarted, reloaded, and seen to by systemd itself.
        restarted = host.show("ssh", "MainPID")
        assert restarted not in ("0", pid) and host.bridge()
        assert host.picture() != before
        said, _ = login.communicate(timeout=60)
        assert login.returncode == 5 and "it was not confirmed" in said, said
        host.assert_picture(before)
        assert not host.bridge() and host.show("ssh", "MainPID") not in ("0", restarted)
        assert "rolled back automatically: it was not confirmed" in host.journal(unit), host.journal(unit)
        assert not host.armed() and not host.waiting()
        assert host.run("systemctl --failed --no-legend --plain").stdout.strip() == ""
        # The restored sshd_config, and the one put back, let one in.
        host.login("true")


def nothing_keeps_the_unit_from_undoing(suite):
    with Admin(suite) as host:
        before = host.picture()
        login = host.arm("--confirm-within 25s")
        unit = host.waiting()
        # The connection is gone with all that was started by it.
        host.run("pkill -KILL -f '[p]bx-config restore'")
        login.communicate(timeout=30)
        pid = host.show(unit, "MainPID")
        assert host.run(f"systemctl stop {unit}", check=False).returncode != 0 and host.waiting() == unit
        host.run(f"kill -KILL {pid}")
        wait_for(lambda: host.show(unit, "MainPID") not in ("0", pid), host)
        # A backup that hangs, in a store on the network that was cut.
        host.run("mkdir -p -m 0700 /run/proxmox-backup-extra && systemd-run --quiet --unit=hanging "
                 "flock /run/proxmox-backup-extra/lock sleep 300")
        began = time.monotonic()
        wait_for(lambda: not host.armed(), host, 90)
        host.assert_picture(before)
        host.run("systemctl stop hanging")
        return f"undone {time.monotonic() - began:.0f} s after all of that"


def only_who_logs_in_after_it_confirms(suite):
    """With the kernel's numbers of logins, and as where it has none."""
    for audit in (True, False):
        with Admin(suite, audit) as host:
            assert (host.login("cat /proc/self/sessionid").stdout.strip() != str(2**32 - 1)) == audit
            wait = f"until [ -e /{ARMED} ]; do sleep 0.2; done; sleep 2;"
            older = host.log_in(f"{wait} pbx-config confirm; echo exit=$?")
            time.sleep(1)
            # sudo, screen and the like: another session of processes, the same login.
            others = ["setsid --wait ", "systemd-run --quiet --wait --pipe "] if audit else []
            tries = "".join(f"{other}pbx-config confirm; echo exit=$?;" for other in ["", *others])
            same = host.log_in(f"{RESTORE} --confirm-within 90s >/root/restored 2>&1 & {wait} {tries} wait; echo restored")
            said, _ = older.communicate(timeout=60)
            assert "exit=2" in said and "older than the restore" in said, said
            # From outside of the container.
            outside = host.run("pbx-config confirm", check=False)
            assert outside.returncode == 2 and "nobody logged in" in outside.stdout, outside.stdout
            assert "--probe" in outside.stdout and "pbx-config undo" in outside.stdout, outside.stdout
            wait_for(host.is_restored, host)
            time.sleep(3)
            assert host.armed()
            assert host.login("pbx-config check", check=False).stdout.count("undoes itself in") == 1
            new = host.login("pbx-config confirm")
            assert "confirmed, it stays" in new.stdout, new.stdout
            said, _ = same.communicate(timeout=60)
            codes = re.findall(r"exit=(\d+)", said)
            assert codes == ["2"] * (1 + len(others)) and "it proves nothing" in said, said
            assert not host.armed() and host.bridge()
            wait_for(lambda: not host.waiting(), host)
            log = host.run("pbx-config log --restores").stdout
            assert "from a new session" in log, log
            host.run("pbx-config undo")
            assert not host.bridge()


def a_power_cut_or_a_reboot_is_undone_before_the_network_comes_up(suite):
    with Admin(suite) as host:
        before = host.picture()
        took = []
        for way in (host.power_cut, host.reboot):
            login = host.arm("--confirm-within 10m")
            assert host.bridge()
            took.append(way())
            login.communicate(timeout=60)
            host.assert_picture(before)
            assert not host.armed() and not host.bridge(), way.__name__
            assert "rolled back automatically" in host.journal(EARLY), host.journal(EARLY)
            host.assert_order(EARLY, "networking")
            assert not host.ran(LATE)
            host.login("true")
        # Nothing waits for what waits.
        assert took[1] < 60, took
        circles = host.run("journalctl --no-pager -b | grep -i 'ordering cycle'", check=False).stdout
        assert circles == "", circles
        # An ordinary boot runs neither.
        host.reboot()
        assert not host.ran(EARLY) and not host.ran(LATE), host.journal(EARLY)
        host.assert_picture(before)
        return f"the reboot took {took[1]:.0f} s"


def what_lies_in_etc_pve_is_undone_as_soon_as_that_is_there(suite):
    with Admin(suite, pve=True) as host:
        rules = host.run(f"cat /{PVE_FIREWALL}").stdout
        host.run(f"sed -i '/^IN/d' /{PVE_FIREWALL}")
        changed = host.run(f"cat /{PVE_FIREWALL}").stdout
        assert changed != rules, rules
        before = host.picture()
        login = host.log_in(f"{RESTORE},firewall --cluster-wide --confirm-within 10m")
        wait_for(lambda: (host.armed() and host.is_restored()) or login.poll() is not None, host)
        assert host.armed(), login.communicate()[0]
        assert host.run(f"cat /{PVE_FIREWALL}").stdout == rules
        host.power_cut()
        login.communicate(timeout=60)
        host.assert_picture(before)
        assert "not put back yet" in host.journal(EARLY), host.journal(EARLY)
        assert "rolled back automatically" in host.journal(LATE), host.journal(LATE)
        assert host.run(f"cat /{PVE_FIREWALL}").stdout == changed and not host.armed()
        assert host.run("cat /run/cluster.fw").stdout == changed, "the firewall came up with what nobody confirmed"
        host.assert_order(EARLY, "networking")


JOBS = 3000


def a_power_cut_in_the_midst_of_a_restore_can_be_undone_and_gone_on_with(suite):
    with Admin(suite) as host:
        make = f"for n in $(seq {JOBS}); do echo '# TEXT' >/etc/cron.d/job-$n; done"
        tree = "cd /etc/cron.d && stat --printf '%n %a %Y %s\\n' job-* && cat job-*"
        folder = "stat --printf '%a %y' /etc/cron.d"
        host.run(make.replace("TEXT", "of the snapshot"))
        host.run("pbx-config backup")
        goal = host.run(tree).stdout
        host.run(make.replace("TEXT", "of today") + "; touch -d 2024-02-03 /etc/cron.d")
        before, folder_before = host.run(tree).stdout, host.run(folder).stdout
        for way in ("undo", "restore --resume"):
            login = host.log_in("pbx-config restore latest --yes --path '/etc/cron.d/*'")
            undo = host.root.path("var/lib/proxmox-backup-extra/undo")
            wait_for(lambda: any(file.stat().st_size > 3000 for file in undo.glob("*/journal")
                                 if "undone" not in file.read_text()), host)
            host.power_cut()
            login.communicate(timeout=60)
            half = host.run(tree).stdout
            assert half not in (before, goal), "it was done already"
            (id,) = [file.parent.name for file in undo.glob("*/journal") if "undone" not in file.read_text()]
            checked = host.run("pbx-config check", check=False)
            assert checked.returncode == 1 and f"{id} was cut short: half done" in checked.stdout, checked.stdout
            status = json.loads(host.run("pbx-config status --json", check=False).stdout)
            assert status["level"] == "critical" and f"pbx-config undo {id}" in json.dumps(status), status
            assert not host.ran(EARLY)
            host.run(f"pbx-config {way} {id}")
            assert host.run(tree).stdout == {"undo": before, "restore --resume": goal}[way], way
            assert way != "undo" or host.run(folder).stdout == folder_before
            left = host.run("pbx-config check", check=False).stdout
            assert "cut short" not in left and not list(host.root.path("etc/cron.d").glob(".pbx*")), left


# What a probe reaches, whatever becomes of the restored units.
TLS_SERVER = """import http.server, ssl
server = http.server.HTTPServer(("127.0.0.1", 8443), http.server.SimpleHTTPRequestHandler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/srv/tls/server.pem")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""


def a_unit_that_never_stops_is_bounded(suite):
    if suite != "trixie":
        return "only where it is the newest: it takes its two minutes"
    with Admin(suite) as host:
        pid = host.show("ssh", "MainPID")
        host.root.write("srv/tls/server.py", TLS_SERVER)
        pem = host.root.path("srv/tls/server.pem")
        sh("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
           "-subj", "/CN=pve1", "-keyout", pem, "-out", f"{pem}.crt")
        pem.write_text(pem.read_text() + Path(f"{pem}.crt").read_text())
        host.run("systemd-run --quiet --unit=tls --working-directory=/srv/tls python3 server.py")
        wait_for(lambda: "127.0.0.1:8443" in host.run("ss -Hltn").stdout, host)
        host.drop_in("ssh.service", "[Service]\nExecStop=/bin/sleep infinity\nTimeoutStopSec=infinity")
        began = time.monotonic()
        done = host.run("pbx-config restore latest --yes --only network,ssh --confirm-within 10m "
                        "--probe https://127.0.0.1:8443", check=False, timeout=300)
        took = time.monotonic() - began
        assert "systemctl restart ssh: timed out" in done.stdout and "ssh: did not start" in done.stdout, done.stdout
        # The probe confirms: the host is reached. What could not be restarted is told all the same.
        assert done.returncode == 3 and took < 200, (done, took)
        assert not host.armed() and host.bridge()
        host.run(f"systemctl kill --signal=KILL ssh.service; kill -KILL {pid}", check=False)
        return f"{took:.0f} s, exit {done.returncode}"


ARMED_TESTS = [
    nobody_confirms_and_a_unit_of_systemd_undoes_it,
    nothing_keeps_the_unit_from_undoing,
    only_who_logs_in_after_it_confirms,
    a_power_cut_or_a_reboot_is_undone_before_the_network_comes_up,
    what_lies_in_etc_pve_is_undone_as_soon_as_that_is_there,
    a_power_cut_in_the_midst_of_a_restore_can_be_undone_and_gone_on_with,
    a_unit_that_never_stops_is_bounded,
]
