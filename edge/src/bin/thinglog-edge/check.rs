//! `check`: what is wrong with the configuration, and with what it names: files that cannot be read,
//! programs that are not there, sockets that cannot be bound. Nothing is started and nothing is left
//! behind.

use std::{
    fs::{self, File, Metadata},
    io,
    net::TcpListener,
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::Path,
};

use rustix::fs::Access;
use thinglog_edge::{
    MIN_SPOOL_BYTES,
    agent::{FilesOptions, SyslogListeners, SyslogOptions, source::Kind},
};
use tokio::runtime::Runtime;

use crate::{
    config::{Loaded, Problem},
    setup,
};

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// These keep the agent from doing what it is told.
    pub(crate) problems: Vec<Problem>,
    /// These may be as they should.
    pub(crate) warnings: Vec<Problem>,
}

/// Tries everything that can be tried without starting.
pub(crate) fn check(loaded: &Loaded) -> Findings {
    let mut findings = Findings::default();
    login(loaded, &mut findings);
    directories(loaded, &mut findings);
    control(loaded, &mut findings);
    http(loaded, &mut findings);
    for (name, source) in &loaded.sources {
        let mut found = Vec::new();
        match &source.kind {
            Kind::File(files) => followed(files, &mut found),
            Kind::Journal(journal) => {
                let wrong = |reason| Found::wrong("program", reason);
                found.extend(journal.try_out().err().map(wrong));
            }
            Kind::Command(command) => {
                let program = command.command.first().map(Path::new);
                let reason = program.and_then(is_missing);
                found.extend(reason.map(|reason| Found::wrong("command[0]", reason)));
            }
            Kind::Stdin(_) => {}
            Kind::Syslog(syslog) => found.extend(listeners(syslog).filter_map(|(key, one)| {
                let bound = runtime().and_then(|runtime| {
                    let _inside = runtime.enter();
                    SyslogListeners::bind(one).map_err(|error| error.to_string())
                });
                bound.err().map(|reason| Found::wrong(key, reason))
            })),
            Kind::Docker(docker) => {
                let reason = UnixStream::connect(&docker.socket).err().map(|error| {
                    let socket = docker.socket.display();
                    format!("no container engine answers at {socket}: {error}")
                });
                found.extend(reason.map(|reason| Found::wrong("socket", reason)));
            }
            Kind::Kmsg(kmsg) => {
                let reason = unreadable(&kmsg.path);
                found.extend(reason.map(|reason| Found::wrong("path", reason)));
            }
        }
        for found in found {
            let problem = loaded.problem(&format!("source.{name}.{}", found.key), found.reason);
            match found.fatal {
                true => findings.problems.push(problem),
                false => findings.warnings.push(problem),
            }
        }
    }
    if loaded.sources.is_empty()
        && let Err(error) = setup::sources(loaded)
    {
        findings
            .problems
            .push(loaded.problem("source", error.to_string()));
    }
    findings
}

/// What is wrong with a key of a source.
struct Found {
    key: String,
    reason: String,
    fatal: bool,
}

impl Found {
    fn wrong(key: impl Into<String>, reason: String) -> Found {
        Found {
            key: key.into(),
            reason,
            fatal: true,
        }
    }
}

fn login(loaded: &Loaded, findings: &mut Findings) {
    let login = &loaded.settings.login;
    if let Err(reason) = setup::publisher(loaded).check_files() {
        // The reason names the file.
        let is_named = |key: &&str| {
            let path = loaded.path_of(key);
            path.is_some_and(|path| reason.contains(&path.display().to_string()))
        };
        let keys = [
            "tls.ca",
            "tls.cert",
            "tls.key",
            "login.password_file",
            "login.token_file",
        ];
        let key = keys.into_iter().find(is_named).unwrap_or("tls");
        findings.problems.push(loaded.problem(key, reason));
    }
    let open = loaded
        .file
        .as_ref()
        .and_then(|file| fs::metadata(file).ok());
    let open = open.is_some_and(|metadata| metadata.permissions().mode() & 0o044 != 0);
    let in_file = matches!(
        loaded.origin("login.password"),
        crate::config::Origin::File(..)
    );
    if login.password.is_some() && in_file && open {
        let reason = "others can read the file; chmod 600, or use login.password_file";
        findings
            .warnings
            .push(loaded.problem("login.password", reason));
    }
}

fn directories(loaded: &Loaded, findings: &mut Findings) {
    let spool = loaded.spool().map(Path::to_owned);
    let bytes = loaded.settings.spool.bytes.0;
    if spool.is_some() && bytes < MIN_SPOOL_BYTES {
        let mib = MIN_SPOOL_BYTES >> 20;
        let reason = format!("{bytes} bytes are too few; allow it at least {mib}MiB");
        findings
            .problems
            .push(loaded.problem("spool.bytes", reason));
    }
    let wanted = [("spool.path", spool), ("state", setup::state_path(loaded))];
    for (key, path) in wanted
        .into_iter()
        .filter_map(|(key, path)| Some((key, path?)))
    {
        if let Some(reason) = cannot_write(&path) {
            findings.problems.push(loaded.problem(key, reason));
        }
    }
}

fn control(loaded: &Loaded, findings: &mut Findings) {
    let Some(path) = &loaded.settings.control.socket else {
        return;
    };
    let key = "control.socket";
    if UnixStream::connect(path).is_ok() {
        let reason = format!("{}: an agent is running there", path.display());
        findings.warnings.push(loaded.problem(key, reason));
    } else if let Some(reason) = path.parent().and_then(cannot_write) {
        findings.problems.push(loaded.problem(key, reason));
    } else if path.as_os_str().len() > 107 {
        let reason = "the path is longer than the 107 bytes that unix(7) allows";
        findings.problems.push(loaded.problem(key, reason));
    }
}

fn http(loaded: &Loaded, findings: &mut Findings) {
    let Some(http) = &loaded.settings.http else {
        return;
    };
    if let Err(error) = TcpListener::bind(http.listen) {
        let reason = format!("{}: {error}", http.listen);
        let running = error.kind() == io::ErrorKind::AddrInUse;
        let problem = loaded.problem("http.listen", reason);
        match running {
            // Likely by the agent that runs.
            true => findings.warnings.push(problem),
            false => findings.problems.push(problem),
        }
    }
    let key = &http.api_key_file;
    let reason = match fs::metadata(key) {
        Ok(_) => fs::read(key)
            .err()
            .map(|error| format!("{}: {error}", key.display())),
        Err(_) => key.parent().and_then(cannot_write),
    };
    let problem = reason.map(|reason| loaded.problem("http.api_key_file", reason));
    findings.problems.extend(problem);
}

/// Why a directory could not be written to, or made.
fn cannot_write(path: &Path) -> Option<String> {
    let here = Path::new(".");
    let above = path.ancestors().find(|path| path.exists()).unwrap_or(here);
    let above = if above.as_os_str().is_empty() {
        here
    } else {
        above
    };
    if !above.is_dir() {
        return Some(format!("{} is no directory", above.display()));
    }
    let writable = rustix::fs::access(above, Access::WRITE_OK | Access::EXEC_OK);
    let error = io::Error::from(writable.err()?);
    Some(format!("{}: {error}", above.display()))
}

/// Sockets are bound within one.
fn runtime() -> Result<Runtime, String> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder
        .enable_all()
        .build()
        .map_err(|error| error.to_string())
}

/// What is wrong with the files that are there; and with names of none, which may come to be.
fn followed(files: &FilesOptions, found: &mut Vec<Found>) {
    for (at, path) in files.paths.iter().enumerate() {
        let key = format!("paths[{at}]");
        let one = FilesOptions {
            paths: vec![path.clone()],
            ..files.clone()
        };
        let matching = match one.found() {
            Ok(matching) => matching,
            Err(error) => {
                found.push(Found::wrong(key, error.to_string()));
                continue;
            }
        };
        let there = matching.iter().filter(|(path, _)| path.exists());
        let mut there = there.peekable();
        if there.peek().is_none() {
            found.push(Found {
                key,
                reason: format!("{path} names no file yet"),
                fatal: false,
            });
            continue;
        }
        for (path, _) in there {
            let is = |what: fn(&Metadata) -> bool| fs::metadata(path).is_ok_and(|path| what(&path));
            if is(Metadata::is_file) {
                let reason = unreadable(path);
                found.extend(reason.map(|reason| Found::wrong(&key, reason)));
            } else if !is(Metadata::is_dir) {
                found.push(Found {
                    key: key.clone(),
                    reason: format!("{} is no regular file and is not read", path.display()),
                    fatal: false,
                });
            }
        }
    }
}

/// Each place to listen at, by its key, alone.
fn listeners(syslog: &SyslogOptions) -> impl Iterator<Item = (&'static str, SyslogOptions)> {
    let none = SyslogOptions {
        udp: None,
        tcp: None,
        datagram: None,
        stream: None,
        ..syslog.clone()
    };
    let (mut udp, mut tcp) = (none.clone(), none.clone());
    let (mut datagram, mut stream) = (none.clone(), none.clone());
    udp.udp = syslog.udp;
    tcp.tcp = syslog.tcp;
    datagram.datagram.clone_from(&syslog.datagram);
    stream.stream.clone_from(&syslog.stream);
    let all = [
        ("udp", udp),
        ("tcp", tcp),
        ("datagram", datagram),
        ("stream", stream),
    ];
    all.into_iter().filter(move |(_, one)| *one != none)
}

/// Why a file cannot be read.
fn unreadable(path: &Path) -> Option<String> {
    let error = File::open(path).err()?;
    Some(format!("{}: {error}", path.display()))
}

/// Why there is no such program.
fn is_missing(program: &Path) -> Option<String> {
    let is_program = |path: &Path| {
        let metadata = fs::metadata(path);
        metadata
            .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
    };
    let found = match program.components().count() {
        1 => std::env::var_os("PATH").is_some_and(|paths| {
            std::env::split_paths(&paths).any(|folder| is_program(&folder.join(program)))
        }),
        _ => is_program(program),
    };
    (!found).then(|| format!("{}: no such program", program.display()))
}
