//! The agent's local HTTP over real sockets, with the real journalctl over real journal files.

#![allow(clippy::unwrap_used)]

mod support;

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use support::journal::Journal;
use thinglog_edge::agent::{HttpError, HttpOptions, HttpServer, KeyError};
use tokio_util::sync::CancellationToken;

const KEY: &str = "0123456789abcdef0123456789abcdef";

struct Server {
    address: SocketAddr,
    cancel: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
    _dir: tempfile::TempDir,
}

impl Server {
    /// Reads the journal with `program`.
    fn start(program: &Path) -> Server {
        let dir = tempfile::tempdir().unwrap();
        let mut options = options(dir.path());
        options.program = program.to_owned();
        let cancel = CancellationToken::new();
        let cancelled = cancel.clone();
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async move {
                let server = HttpServer::bind(&options).await.unwrap();
                tell.send(server.address().unwrap()).unwrap();
                server.run(cancelled).await.unwrap();
            });
        });
        Server {
            address: told.recv().unwrap(),
            cancel,
            thread: Some(thread),
            _dir: dir,
        }
    }

    /// Sends a request as it stands; the connection has given no answer yet.
    fn send(&self, request: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(support::LIMIT)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        stream
    }

    /// Asks for the journal with the key.
    fn ask(&self, body: &str) -> TcpStream {
        let target = format!("/v2/journal-logs?apikey={KEY}");
        self.send(&post(&target, "Content-Type: application/json\r\n", body))
    }

    fn answer(&self, request: &str) -> (u16, String) {
        read_answer(self.send(request))
    }

    fn logs(&self, body: &str) -> (u16, String) {
        read_answer(self.ask(body))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.cancel.cancel();
        self.thread.take().unwrap().join().unwrap();
    }
}

fn options(dir: &Path) -> HttpOptions {
    let key = dir.join("api-key");
    fs::write(&key, KEY).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(&key, mode).unwrap();
    HttpOptions::new("127.0.0.1:0".parse().unwrap(), key)
}

fn post(target: &str, headers: &str, body: &str) -> String {
    format!(
        "POST {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn status_of(line: &str) -> u16 {
    line.split(' ').nth(1).unwrap().parse().unwrap()
}

/// Status and body; fails when the answer is not complete.
fn read_answer(stream: TcpStream) -> (u16, String) {
    let mut reader = BufReader::new(stream);
    let (status, chunked) = read_head(&mut reader);
    let mut body = Vec::new();
    if chunked {
        while let Some(chunk) = read_chunk(&mut reader) {
            body.extend(chunk);
        }
    } else {
        reader.read_to_end(&mut body).unwrap();
    }
    (status, String::from_utf8(body).unwrap())
}

fn read_head(reader: &mut impl BufRead) -> (u16, bool) {
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let status = status_of(&line);
    let mut chunked = false;
    loop {
        line.clear();
        reader.read_line(&mut line).unwrap();
        chunked |= line.eq_ignore_ascii_case("transfer-encoding: chunked\r\n");
        if line == "\r\n" {
            return (status, chunked);
        }
    }
}

/// `None` at the last chunk.
fn read_chunk(reader: &mut impl BufRead) -> Option<Vec<u8>> {
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let length = usize::from_str_radix(line.trim(), 16).expect("a chunk, or the end of them");
    let mut chunk = vec![0; length + 2];
    reader.read_exact(&mut chunk).unwrap();
    chunk.truncate(length);
    (length > 0).then_some(chunk)
}

fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + support::LIMIT;
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Lines; those that are JSON without the order of their fields, which journalctl throws dice for.
fn fields(text: &str) -> Vec<String> {
    let normal = |line: &str| match serde_json::from_str::<serde_json::Value>(line) {
        Ok(value) => value.to_string(),
        Err(_) => line.to_owned(),
    };
    text.lines().map(normal).collect()
}

fn entries(journal: &mut Journal) {
    journal.write(&[
        (1_767_225_600, "nginx.service", 3, "upstream is down"),
        (1_767_225_601, "sshd.service", 6, "session opened"),
        (1_767_225_602, "nginx.service", 6, "GET /"),
    ]);
}

#[test]
fn the_journal_comes_as_journalctl_writes_it() {
    let Some(mut journal) = Journal::new("the_journal_comes_as_journalctl_writes_it") else {
        return;
    };
    entries(&mut journal);
    let server = Server::start(&journal.program());
    for (body, arguments) in [
        ("", &["-o", "short"][..]),
        (r#"{"all":true}"#, &["-a", "-o", "short"]),
        (r#"{"count":2,"format":"json"}"#, &["-n", "2", "-o", "json"]),
        (
            r#"{"unit":"nginx.service","format":"cat"}"#,
            &["-u", "nginx.service", "-o", "cat"],
        ),
        (
            r#"{"containerId":"sshd","format":"short-iso"}"#,
            &["-t", "sshd", "-o", "short-iso"],
        ),
        (
            r#"{"since":"2026-01-01 00:00:01 UTC","until":"2026-01-01 00:00:01.5 UTC","format":"export"}"#,
            &[
                "-S",
                "2026-01-01 00:00:01 UTC",
                "-U",
                "2026-01-01 00:00:01.5 UTC",
                "-o",
                "export",
            ],
        ),
    ] {
        let expected = journal.read(arguments);
        assert!(!expected.is_empty(), "{body}");
        let (status, answer) = server.logs(body);
        assert_eq!(
            (status, fields(&answer)),
            (200, fields(&expected)),
            "{body}"
        );
    }
    let (_, nginx) = server.logs(r#"{"unit":"nginx.service","format":"cat"}"#);
    assert_eq!(nginx, "upstream is down\nGET /\n");
}

#[test]
fn a_follower_gets_new_entries_and_journalctl_ends_with_it() {
    let Some(mut journal) = Journal::new("a_follower_gets_new_entries") else {
        return;
    };
    entries(&mut journal);
    let server = Server::start(&journal.program());
    let stream = server.ask(r#"{"follow":true,"format":"cat"}"#);
    let mut reader = BufReader::new(stream);
    assert_eq!(read_head(&mut reader), (200, true));
    let mut seen = String::new();
    let mut read_until = |text: &str, reader: &mut BufReader<TcpStream>| {
        while !seen.contains(text) {
            let chunk = read_chunk(reader).expect("more of a journal that is followed");
            seen.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    };
    read_until("GET /\n", &mut reader);
    journal.write(&[(1_767_225_603, "nginx.service", 6, "something new")]);
    read_until("something new\n", &mut reader);
    assert_eq!(journal.readers().len(), 1);
    drop(reader);
    until("journalctl to end", || {
        journal.readers().is_empty().then_some(())
    });
}

#[test]
fn a_silent_journal_is_answered_and_given_up_as_well() {
    let Some(mut journal) = Journal::new("a_silent_journal_is_answered") else {
        return;
    };
    entries(&mut journal);
    let server = Server::start(&journal.program());
    let stream = server.ask(r#"{"follow":true,"unit":"none.service","format":"cat"}"#);
    let mut reader = BufReader::new(stream);
    assert_eq!(read_head(&mut reader), (200, true));
    drop(reader);
    until("journalctl to end", || {
        journal.readers().is_empty().then_some(())
    });
}

#[test]
fn what_journalctl_refuses_is_a_bad_request_in_its_words() {
    let Some(mut journal) = Journal::new("what_journalctl_refuses") else {
        return;
    };
    entries(&mut journal);
    let server = Server::start(&journal.program());
    for body in [
        r#"{"since":"sometime"}"#,
        r#"{"until":"sometime","follow":true}"#,
    ] {
        let (status, text) = server.logs(body);
        assert_eq!(status, 400, "{text}");
        assert!(
            text.contains("Failed to parse timestamp: sometime"),
            "{text}"
        );
    }
    // An option in a value stays a value.
    let (status, text) = server.logs(r#"{"since":"--file=/etc/passwd"}"#);
    assert_eq!(status, 400, "{text}");
    assert!(text.contains("--file=/etc/passwd"), "{text}");
}

#[test]
fn nothing_but_ping_is_answered_without_the_key() {
    let server = Server::start(Path::new("/bin/echo"));
    let ping = server.answer("GET /ping HTTP/1.1\r\nHost: localhost:48484\r\n\r\n");
    assert_eq!(ping, (200, "OK".to_owned()));
    let wrong = format!("/v2/journal-logs?apikey={}", KEY.replace('0', "1"));
    for target in [
        "/v2/journal-logs",
        "/v2/journal-logs?apikey=",
        &wrong,
        "/v2/other",
    ] {
        let (status, text) = server.answer(&post(target, "", ""));
        assert_eq!(status, 401, "{target}: {text}");
        assert!(text.contains("API key"), "{text}");
    }
    for scheme in ["Bearer", "ApiKey"] {
        let header = format!("Authorization: {scheme} {KEY}\r\n");
        let (status, text) = server.answer(&post("/v2/journal-logs", &header, ""));
        assert_eq!((status, text.trim()), (200, "--no-pager --output=short"));
    }
}

#[test]
fn pages_in_a_browser_and_names_of_other_hosts_are_refused() {
    let server = Server::start(Path::new("/bin/echo"));
    let target = format!("/v2/journal-logs?apikey={KEY}");
    for origin in ["http://evil.example", "null", "http://127.0.0.1"] {
        let request = post(&target, &format!("Origin: {origin}\r\n"), "");
        assert_eq!(server.answer(&request).0, 403, "{origin}");
    }
    for (host, status) in [
        ("evil.example", 403),
        ("127.0.0.1.evil.example:80", 403),
        ("", 403),
        ("127.0.0.1:48484", 200),
        ("[::1]:48484", 200),
        ("LOCALHOST", 200),
    ] {
        let request = post(&target, "", "").replace("Host: 127.0.0.1", &format!("Host: {host}"));
        assert_eq!(server.answer(&request).0, status, "{host}");
    }
    // What a form on a page could send without asking first.
    let form = post(&target, "Content-Type: text/plain\r\n", r#"{"all":true}"#);
    assert_eq!(server.answer(&form).0, 415);
}

#[test]
fn bad_requests_are_explained() {
    let server = Server::start(Path::new("/bin/echo"));
    for (body, hint) in [
        (r#"{"folow":true}"#, "folow"),
        (r#"{"format":"xml"}"#, "short-iso"),
        (r#"{"count":"many"}"#, "`count`"),
        ("{", "EOF"),
    ] {
        let (status, text) = server.logs(body);
        assert_eq!(status, 400, "{body}");
        let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(answer["status"], "failed");
        assert!(answer["message"].as_str().unwrap().contains(hint), "{text}");
    }
    assert_eq!(server.logs(&format!("{:20000}", "{}")).0, 413);
    let get = format!("GET /v2/journal-logs?apikey={KEY} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(server.answer(&get).0, 405);
    let other = post(&format!("/v2/state?apikey={KEY}"), "", "");
    assert_eq!(server.answer(&other).0, 404);
}

#[test]
fn without_a_journal_the_answer_says_what_to_do_instead() {
    let server = Server::start(Path::new("/nonexistent/journalctl"));
    let (status, text) = server.logs("");
    assert_eq!(status, 501);
    assert!(text.contains("thinglog logs request"), "{text}");
}

#[test]
fn curl_reads_the_journal_as_balenas_documentation_says() {
    let curl = Command::new("curl").arg("--version").output();
    if !curl.is_ok_and(|output| output.status.success()) {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "needs curl");
        eprintln!("SKIP: curl_reads_the_journal needs curl");
        return;
    }
    let Some(mut journal) = Journal::new("curl_reads_the_journal") else {
        return;
    };
    entries(&mut journal);
    let server = Server::start(&journal.program());
    let address = format!("http://{}/v2/journal-logs?apikey={KEY}", server.address);
    let output = Command::new("curl")
        .args(["-sS", "-X", "POST", "-H", "Content-Type: application/json"])
        .args(["--data", r#"{"all":true,"format":"cat"}"#, &address])
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert_eq!(stdout, "upstream is down\nsession opened\nGET /\n");
}

#[test]
fn followers_are_few_and_their_places_are_given_back() {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("journalctl");
    fs::write(&program, "#!/bin/sh\necho here\nexec sleep 600\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&program, mode).unwrap();
    let server = Server::start(&program);
    let follow = || {
        let mut reader = BufReader::new(server.ask(r#"{"follow":true}"#));
        let (status, _) = read_head(&mut reader);
        (status == 200).then_some(reader)
    };
    let mut followers: Vec<_> = std::iter::from_fn(follow).take(10).collect();
    assert_eq!(followers.len(), 4);
    let (status, text) = server.logs(r#"{"follow":true}"#);
    assert_eq!(status, 503, "{text}");
    assert!(text.contains("too many"), "{text}");
    followers.pop();
    let again = until("a place to be free", follow);
    drop(again);
}

#[test]
fn a_slow_reader_holds_up_journalctl_and_not_memory() {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("journalctl");
    let pid = dir.path().join("pid");
    let script = format!("#!/bin/sh\necho $$ > {}\nexec yes line\n", pid.display());
    fs::write(&program, script).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&program, mode).unwrap();
    let server = Server::start(&program);
    let mut reader = BufReader::new(server.ask(""));
    assert_eq!(read_head(&mut reader), (200, true));
    let pid = until("the program's pid", || {
        fs::read_to_string(&pid).ok().filter(|p| p.ends_with('\n'))
    });
    let written = || {
        let io = fs::read_to_string(format!("/proc/{}/io", pid.trim())).unwrap();
        let line = io
            .lines()
            .find_map(|line| line.strip_prefix("wchar: "))
            .unwrap();
        line.parse::<u64>().unwrap()
    };
    // It writes gigabytes a second until the pipes are full.
    let mut last = 0;
    let held = until("the program to be held up", || {
        let now = written();
        let same = now == std::mem::replace(&mut last, now) && now > 0;
        same.then_some(now)
    });
    assert!(held < 64 << 20, "{held} bytes are somewhere");
    drop(reader);
    until("the program to end", || {
        (!Path::new(&format!("/proc/{}/fd/1", pid.trim())).exists()).then_some(())
    });
}

#[test]
fn it_does_not_start_without_a_key_that_protects() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path());
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    fs::set_permissions(&options.api_key_file, mode).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let error = runtime.block_on(HttpServer::bind(&options)).err().unwrap();
    assert!(matches!(
        &error,
        HttpError::Key {
            reason: KeyError::Open,
            ..
        }
    ));
    assert!(error.to_string().contains("chmod 600"), "{error}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let fresh = HttpOptions::new(taken.local_addr().unwrap(), dir.path().join("made"));
    let error = runtime.block_on(HttpServer::bind(&fresh)).err().unwrap();
    assert!(error.to_string().contains("http.listen"), "{error}");
}
