//! Fluent Bit beside the agent: three of it follow the same file and send what they read to nginx, which
//! throws it away. One does as much as the agent, the others as little as they can.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use crate::Process;

/// Names the program.
pub(crate) const VARIABLE: &str = "FLUENT_BIT";

/// What it is to do, and the settings of its input and its output for that.
const WORK: [(&str, &str, &str); 3] = [
    (
        "time and fields of syslog, JSON, gzip",
        "    Parser syslog\n",
        "    Format json_lines\n    Compress gzip\n",
    ),
    ("lines as they are, JSON", "", "    Format json_lines\n"),
    ("lines as they are, MessagePack", "", "    Format msgpack\n"),
];
/// The header of RFC 3164 and the program's name before its text.
const PARSERS: &str = r"[PARSER]
    Name syslog
    Format regex
    Regex ^(?<time>[A-Z][a-z]{2} [ 0-9][0-9] [0-9:]{8}) (?<host>\S+) (?<identifier>[^\s:\[]+)(?:\[(?<pid>\d+)\])?: (?<message>.*)$
    Time_Key time
    Time_Format %b %d %H:%M:%S
";

/// Ends with the programs.
pub(crate) struct Peers {
    _nginx: Process,
    peers: Vec<Peer>,
}

pub(crate) struct Peer {
    pub(crate) work: &'static str,
    pub(crate) process: Process,
    monitor: SocketAddr,
}

impl Peers {
    /// They read on from the end of `file`. Says so when there is nothing to start.
    pub(crate) fn start(dir: &Path, file: &str) -> Option<Peers> {
        let Ok(program) = std::env::var(VARIABLE) else {
            println!("NOT MEASURED beside Fluent Bit: {VARIABLE} does not say where it is");
            return None;
        };
        let sink = free_port();
        let config = place(dir, "nginx.conf");
        fs::write(&config, nginx(dir, sink)).unwrap();
        let mut command = Command::new("nginx");
        command.args(["-e", "stderr", "-p"]).arg(dir);
        let nginx = match command.args(["-c", &config]).spawn() {
            Ok(child) => Process(child),
            Err(error) => {
                println!("NOT MEASURED beside Fluent Bit: nginx, {error}");
                return None;
            }
        };
        fs::write(place(dir, "parsers.conf"), PARSERS).unwrap();
        let peers: Vec<Peer> = (0..WORK.len())
            .map(|at| Peer::start(&program, dir, file, sink, at))
            .collect();
        // Both are there once the file is open.
        for peer in &peers {
            while peer.figure("input", "tail.0", "files_opened") < Some(1) {
                thread::sleep(Duration::from_millis(100));
            }
        }
        Some(Peers {
            _nginx: nginx,
            peers,
        })
    }

    pub(crate) fn each(&self) -> impl Iterator<Item = &Peer> {
        self.peers.iter()
    }
}

impl Peer {
    fn start(program: &str, dir: &Path, file: &str, sink: SocketAddr, at: usize) -> Peer {
        let (work, input, output) = WORK[at];
        let monitor = free_port();
        let text = format!(
            "[SERVICE]\n    Flush 1\n    Log_Level error\n    Parsers_File {}\n    HTTP_Server On\n    \
             HTTP_Listen 127.0.0.1\n    HTTP_Port {}\n\
             [INPUT]\n    Name tail\n    Path {file}\n    Read_from_Head false\n{input}\
             [OUTPUT]\n    Name http\n    Match *\n    Host 127.0.0.1\n    Port {}\n{output}",
            place(dir, "parsers.conf"),
            monitor.port(),
            sink.port(),
        );
        let config = place(dir, &format!("peer-{at}.conf"));
        fs::write(&config, text).unwrap();
        let mut command = Command::new(program);
        let child = command.args(["-q", "-c", &config]).stdin(Stdio::null());
        let process = Process(child.spawn().unwrap());
        Peer {
            work,
            process,
            monitor,
        }
    }

    /// Events that nginx has taken.
    pub(crate) fn delivered(&self) -> u64 {
        let delivered = self.figure("output", "http.0", "proc_records");
        delivered.unwrap_or_default()
    }

    /// What it says of a part of itself; `None` before it serves.
    fn figure(&self, kind: &str, part: &str, name: &str) -> Option<u64> {
        let mut stream = TcpStream::connect(self.monitor).ok()?;
        let request = b"GET /api/v1/metrics HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n";
        stream.write_all(request).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (_, body) = answer.split_once("\r\n\r\n")?;
        let figures: serde_json::Value = serde_json::from_str(body).ok()?;
        figures[kind][part][name].as_u64()
    }
}

fn nginx(dir: &Path, listen: SocketAddr) -> String {
    format!(
        "daemon off;\nmaster_process off;\npid {};\nerror_log stderr crit;\nevents {{}}\nhttp {{\n  access_log off;\n  \
         client_max_body_size 0;\n  client_body_temp_path {};\n  \
         server {{ listen {listen}; location / {{ return 204; }} }}\n}}\n",
        place(dir, "nginx.pid"),
        place(dir, "bodies"),
    )
}

fn place(dir: &Path, name: &str) -> String {
    dir.join(name).display().to_string()
}

fn free_port() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}
