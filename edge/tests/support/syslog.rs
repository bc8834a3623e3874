//! Lines as a small Linux machine writes them to syslog: the same few programs over and over, each with
//! process ids, addresses, paths, durations and counts that differ from line to line. The same seed
//! gives the same lines everywhere.

#![allow(dead_code, clippy::unwrap_used)]

use thinglog_schemas::Severity;

/// One line, taken apart.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    /// When it was written, ns since the Unix epoch, in microseconds as rsyslog has them.
    pub(crate) time: u64,
    /// When whoever reads the log got it, to the nanosecond.
    pub(crate) arrived: u64,
    pub(crate) severity: Severity,
    /// What follows the time: `host program[pid]: text`.
    pub(crate) rest: String,
}

impl Line {
    /// The whole line, with its time in RFC 3164's form.
    pub(crate) fn raw(&self) -> String {
        let seconds = self.time / 1_000_000_000 % 86_400;
        let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
        let seconds = seconds % 60;
        format!("Mar 12 {hours:02}:{minutes:02}:{seconds:02} {}", self.rest)
    }
}

/// Somebody at the door of sshd: a few lines in a row are about the same.
struct Visitor {
    pid: u64,
    address: String,
    port: u64,
    user: &'static str,
    lines: u64,
}

/// An endless log.
pub(crate) struct Syslog {
    state: u64,
    time: u64,
    uptime: u64,
    visitor: Option<Visitor>,
}

impl Syslog {
    pub(crate) fn new(seed: u64) -> Syslog {
        Syslog {
            state: seed,
            time: 1_773_273_600_000_000_000,
            uptime: 1_204_331_000_000,
            visitor: None,
        }
    }

    /// splitmix64
    fn next_number(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut x = self.state;
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ (x >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next_number() % limit
    }

    fn pick(&mut self, of: &[&'static str]) -> &'static str {
        of[self.below(of.len() as u64) as usize]
    }

    fn address(&mut self) -> String {
        let (a, b, c) = (self.below(224), self.below(256), self.below(254));
        format!("{a}.{b}.{c}.{}", 1 + self.below(254))
    }

    fn visitor(&mut self) -> Visitor {
        Visitor {
            pid: self.pid(),
            address: self.address(),
            port: 1024 + self.below(60_000),
            user: self.pick(&[
                "root", "admin", "test", "oracle", "ubuntu", "git", "postgres", "pi",
            ]),
            lines: 2 + self.below(4),
        }
    }

    fn sshd(&mut self) -> (Severity, String) {
        let mut visitor = match self.visitor.take() {
            Some(visitor) => visitor,
            None => self.visitor(),
        };
        let kind = self.below(6);
        let Visitor {
            pid,
            address,
            port,
            user,
            ..
        } = &visitor;
        let text = match kind {
            0 | 1 => format!("Failed password for {user} from {address} port {port} ssh2"),
            2 => format!("Invalid user {user} from {address} port {port}"),
            3 => format!("Received disconnect from {address} port {port}:11: Bye Bye [preauth]"),
            4 => format!(
                "Connection closed by authenticating user {user} {address} port {port} [preauth]"
            ),
            _ => format!(
                "pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost={address} user={user}"
            ),
        };
        let text = format!("sshd[{pid}]: {text}");
        visitor.lines -= 1;
        self.visitor = Some(visitor).filter(|visitor| visitor.lines > 0);
        (Severity::INFO, text)
    }

    fn kernel(&mut self) -> (Severity, String) {
        let (seconds, micros) = (self.uptime / 1_000_000, self.uptime % 1_000_000);
        let (severity, text) = match self.below(5) {
            0 => (
                Severity::INFO,
                format!(
                    "usb 1-1.{}: new high-speed USB device number {} using xhci_hcd",
                    self.below(4),
                    self.below(120)
                ),
            ),
            1 => (
                Severity::WARN,
                format!(
                    "wlan0: deauthenticated from {} (Reason: {})",
                    self.mac(),
                    self.below(20)
                ),
            ),
            2 => {
                let (source, length) = (self.address(), 40 + self.below(20));
                let (id, from, to) = (
                    self.below(65_536),
                    1024 + self.below(64_000),
                    self.pick(&["22", "23", "445", "3389", "8080"]),
                );
                let mac = self.mac();
                (
                    Severity::WARN,
                    format!(
                        "[UFW BLOCK] IN=eth0 OUT= MAC={mac} SRC={source} DST=203.0.113.7 LEN={length} TOS=0x00 PREC=0x00 TTL={} ID={id} PROTO=TCP SPT={from} DPT={to} WINDOW=1024 RES=0x00 SYN URGP=0",
                        30 + self.below(200)
                    ),
                )
            }
            3 => (
                Severity::ERROR,
                format!(
                    "blk_update_request: I/O error, dev mmcblk0, sector {} op 0x0:(READ) flags 0x80700 phys_seg {} prio class 0",
                    self.below(60_000_000),
                    1 + self.below(16)
                ),
            ),
            _ => (
                Severity::INFO,
                format!(
                    "thermal thermal_zone0: temperature {} above the passive trip point",
                    70_000 + self.below(20_000)
                ),
            ),
        };
        (
            severity,
            format!("kernel: [{seconds:>6}.{micros:06}] {text}"),
        )
    }

    fn mac(&mut self) -> String {
        // A dozen neighbours.
        let n = self.below(12) * 0x13_57_9B;
        format!(
            "b8:27:eb:{:02x}:{:02x}:{:02x}",
            n >> 16,
            n >> 8 & 255,
            n & 255
        )
    }

    fn systemd(&mut self) -> (Severity, String) {
        let unit = self.pick(&[
            "apt-daily",
            "logrotate",
            "man-db",
            "fstrim",
            "systemd-tmpfiles-clean",
            "certbot",
            "lampd",
            "phpsessionclean",
        ]);
        let text = match self.below(4) {
            0 => format!("Starting {unit}.service..."),
            1 => format!("{unit}.service: Deactivated successfully."),
            2 => format!("Finished {unit}.service."),
            _ => format!(
                "{unit}.service: Consumed {}.{:03}s CPU time.",
                self.below(20),
                self.below(1000)
            ),
        };
        (Severity::INFO, format!("systemd[1]: {text}"))
    }

    fn cron(&mut self) -> (Severity, String) {
        let command = self.pick(&[
            "cd / && run-parts --report /etc/cron.hourly",
            "/usr/lib/lampd/rotate --quiet",
            "test -e /run/systemd/system || SERVICE_MODE=1 /sbin/e2scrub_all -A -r",
        ]);
        (
            Severity::INFO,
            format!("CRON[{}]: (root) CMD ({command})", self.pid()),
        )
    }

    fn nginx(&mut self) -> (Severity, String) {
        let address = self.address();
        let (method, lamp) = (
            self.pick(&["GET", "GET", "GET", "POST", "PUT"]),
            self.below(400),
        );
        let what = self.pick(&["state", "schedule", "firmware", "events"]);
        let (status, bytes) = (
            self.pick(&["200", "200", "200", "204", "304", "404"]),
            self.below(20_000),
        );
        (
            Severity::INFO,
            format!(
                "nginx: {address} \"{method} /api/v1/lamps/{lamp}/{what} HTTP/1.1\" {status} {bytes} rt=0.{:03}",
                self.below(400)
            ),
        )
    }

    fn dhcp(&mut self) -> (Severity, String) {
        let last = self.below(254);
        let text = match self.below(3) {
            0 => format!(
                "DHCPREQUEST for 192.168.1.{last} on eth0 to 192.168.1.1 port 67 (xid=0x{:08x})",
                self.below(1 << 32)
            ),
            1 => format!(
                "DHCPACK of 192.168.1.{last} from 192.168.1.1 (xid=0x{:08x})",
                self.below(1 << 32)
            ),
            _ => format!(
                "bound to 192.168.1.{last} -- renewal in {} seconds.",
                1000 + self.below(3000)
            ),
        };
        (Severity::INFO, format!("dhclient[733]: {text}"))
    }

    fn lampd(&mut self) -> (Severity, String) {
        let lamp = self.below(40);
        let (severity, text) = match self.below(4) {
            0 => (
                Severity::INFO,
                format!(
                    "lamp {lamp}: brightness {} -> {} in {} ms",
                    self.below(101),
                    self.below(101),
                    self.below(900)
                ),
            ),
            1 => (
                Severity::DEBUG,
                format!(
                    "lamp {lamp}: rssi -{} dBm, {} retries",
                    30 + self.below(60),
                    self.below(5)
                ),
            ),
            2 => (
                Severity::WARN,
                format!("lamp {lamp}: no answer for {} ms", 1000 + self.below(9000)),
            ),
            _ => (
                Severity::INFO,
                format!(
                    "sensor {lamp}: {}.{} C, {} %",
                    10 + self.below(30),
                    self.below(10),
                    20 + self.below(60)
                ),
            ),
        };
        (severity, format!("lampd[412]: {text}"))
    }

    fn pid(&mut self) -> u64 {
        300 + self.below(32_000)
    }
}

impl Iterator for Syslog {
    type Item = Line;

    fn next(&mut self) -> Option<Line> {
        let step = match self.below(3) {
            0 => self.below(900),
            1 => self.below(90_000),
            _ => self.below(2_000_000),
        };
        self.time += step * 1000;
        self.uptime += step;
        let (severity, text) = match self.below(16) {
            0..4 => self.sshd(),
            4..6 => self.kernel(),
            6..8 => self.systemd(),
            8 => self.cron(),
            9..12 => self.nginx(),
            12 => self.dhcp(),
            _ => self.lampd(),
        };
        Some(Line {
            time: self.time,
            arrived: self.time + 20_000 + self.below(400_000),
            severity,
            rest: format!("lamp-7 {text}"),
        })
    }
}
