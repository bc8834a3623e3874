//! A PostgreSQL server in a folder of its own, spoken to with `psql`.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};

use crate::common::{PATIENCE, free_port};

pub(crate) const PASSWORD: &str = "hush hush";
/// Nobody's numbers: the server does not run as root.
const NOBODY: u32 = 65534;

/// A server whose superuser is `thinglog`, and which ends with the value.
pub(crate) struct Server {
    child: Child,
    folder: tempfile::TempDir,
    pub(crate) port: u16,
    /// Further settings, as `name=value`.
    settings: Vec<String>,
}

impl Server {
    /// `None` where it is not installed, unless in CI.
    pub(crate) fn start() -> Option<Server> {
        let Some(initdb) = program("initdb") else {
            assert!(
                std::env::var_os("CI").is_none(),
                "CI must have postgresql installed: tests/run does it"
            );
            eprintln!("SKIPPED: postgresql is not installed; tests/run does it");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("password"), PASSWORD).unwrap();
        give(folder.path(), 0o755);
        give(&folder.path().join("password"), 0o644);
        let made = unprivileged(&initdb)
            .args(["-U", "thinglog", "--auth=scram-sha-256", "--no-sync"])
            .args(["--no-locale", "-E", "UTF8", "-D"])
            .arg(folder.path().join("data"))
            .arg("--pwfile")
            .arg(folder.path().join("password"))
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        let port = free_port();
        let server = Server {
            child: spawn(folder.path(), port, &[]),
            folder,
            port,
            settings: Vec::new(),
        };
        server.wait_until_up();
        Some(server)
    }

    /// Starts it anew with a certificate, for `localhost`.
    pub(crate) fn encrypt(&mut self, certificate: &Path, key: &Path) {
        for (name, from) in [("server.crt", certificate), ("server.key", key)] {
            let to = self.folder.path().join(name);
            std::fs::copy(from, &to).unwrap();
            give(&to, 0o600);
            let kind = if name.ends_with("crt") { "cert" } else { "key" };
            self.settings
                .push(format!("ssl_{kind}_file={}", to.display()));
        }
        self.settings.push("ssl=on".into());
        let rules = "hostssl all all 127.0.0.1/32 scram-sha-256\n";
        std::fs::write(self.folder.path().join("data/pg_hba.conf"), rules).unwrap();
        self.stop();
        self.resume();
    }

    /// Ends it as a crash would.
    pub(crate) fn stop(&mut self) {
        kill_process(Pid::from_child(&self.child), Signal::QUIT).unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn resume(&mut self) {
        self.child = spawn(self.folder.path(), self.port, &self.settings);
        self.wait_until_up();
    }

    /// `psql` as the superuser.
    pub(crate) fn psql(&self) -> Command {
        let mut command = Command::new(program("psql").unwrap());
        command
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"])
            .args(["-h", "127.0.0.1", "-U", "thinglog", "-d", "postgres", "-p"])
            .arg(self.port.to_string())
            .env("PGPASSWORD", PASSWORD);
        command
    }

    /// What statements give, a row a line.
    pub(crate) fn sql(&self, text: &str) -> String {
        let done = self.psql().args(["-c", text]).output().unwrap();
        assert!(
            done.status.success(),
            "{text}: {}",
            String::from_utf8_lossy(&done.stderr)
        );
        let rows = String::from_utf8(done.stdout).unwrap();
        rows.trim_end_matches('\n').to_owned()
    }

    fn wait_until_up(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let asked = self.psql().args(["-c", "SELECT 1"]).output().unwrap();
            if asked.status.success() {
                return;
            }
            assert!(Instant::now() < deadline, "PostgreSQL: {asked:?}");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.child), Signal::QUIT);
        let _ = self.child.wait();
    }
}

fn spawn(folder: &Path, port: u16, settings: &[String]) -> Child {
    let mut command = unprivileged(&program("postgres").unwrap());
    command.arg("-D").arg(folder.join("data"));
    command.args(["-p", &port.to_string(), "-k", ""]);
    for setting in ["fsync=off", "listen_addresses=127.0.0.1"] {
        command.args(["-c", setting]);
    }
    for setting in settings {
        command.args(["-c", setting]);
    }
    command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// A program of PostgreSQL's, of the newest version; Debian has them off the path.
fn program(name: &str) -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten();
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let mut found: Vec<PathBuf> = versions
        .flatten()
        .map(|version| version.path().join("bin"))
        .chain(std::env::split_paths(&paths))
        .map(|folder| folder.join(name))
        .filter(|file| file.is_file())
        .collect();
    // What Debian has on the path only calls these.
    found.sort_by_key(|file| file.starts_with("/usr/lib/postgresql"));
    found.pop()
}

/// The server refuses to run as root.
fn unprivileged(program: &Path) -> Command {
    if !rustix::process::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    let nobody = NOBODY.to_string();
    command
        .args(["--reuid", &nobody, "--regid", &nobody, "--clear-groups"])
        .arg(program)
        .current_dir("/");
    command
}

/// Gives a file or folder to the user whom the server runs as.
fn give(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
}
