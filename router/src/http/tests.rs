use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::routing::{get, post};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::authenticate::{AccessKey, Answer, Denied, Shown};
use super::*;

/// Knows `alice` (password `wonder`, operator of `eu`), the token `scrape` and the key of AWS's examples.
#[derive(Default)]
struct Doorkeeper {
    refused: AtomicUsize,
}

fn caller(name: &str, role: Role, groups: &[&str]) -> Caller {
    Caller {
        name: name.into(),
        role,
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
    }
}

impl Authenticate for Doorkeeper {
    fn sign_in<'a>(&'a self, shown: Shown<'a>, _: IpAddr) -> Answer<'a, Result<Caller, Denied>> {
        let found = match shown {
            Shown::Password {
                user: "alice",
                password: "wonder:land",
            } => Ok(caller("alice", Role::Operator, &["eu"])),
            Shown::Bearer("scrape") => Ok(caller("prometheus", Role::Other, &[])),
            Shown::Bearer("busy") => Err(Denied::Busy("too many")),
            _ => Err(Denied::Wrong("wrong user name or password")),
        };
        Box::pin(async move { found })
    }

    fn access_key(&self, id: &str) -> Option<AccessKey> {
        (id == "AKIDEXAMPLE").then(|| AccessKey {
            secret: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".into(),
            caller: caller("robot", Role::Admin, &[]),
        })
    }

    fn refused(&self, _: IpAddr) -> Answer<'_, ()> {
        self.refused.fetch_add(1, Ordering::Relaxed);
        Box::pin(async {})
    }
}

struct Running {
    address: SocketAddr,
    stop: CancellationToken,
    serving: JoinHandle<std::io::Result<()>>,
}

fn serve(config: HttpConfig, doorkeeper: Option<Arc<dyn Authenticate>>) -> Running {
    let config = HttpConfig {
        address: "127.0.0.1:0".parse().unwrap(),
        ..config
    };
    let mut http = Http::bind(&config, Registry::new(), Health::new(), doorkeeper).unwrap();
    let who = |caller: Caller| async move {
        format!("{} {:?} {:?}", caller.name, caller.role, caller.groups)
    };
    http.mount(
        axum::Router::new()
            .route("/api/who", get(who).post(who))
            .route("/api/echo", post(|body: String| async move { body }))
            .route("/api/slow", get(std::future::pending::<()>))
            .route("/api/large", get(|| async { vec![b'x'; 64 << 20] })),
    );
    let address = http.address().unwrap();
    let stop = CancellationToken::new();
    let serving = tokio::spawn(http.run(stop.clone()));
    Running {
        address,
        stop,
        serving,
    }
}

fn signing_in() -> Running {
    let config = HttpConfig {
        sign_in: true,
        open_metrics: Some(false),
        ..HttpConfig::default()
    };
    serve(config, Some(Arc::new(Doorkeeper::default())))
}

impl Running {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// The answer to a request with these lines behind the first.
    async fn ask(&self, first: &str, lines: &[&str], body: &str) -> String {
        let mut stream = self.connect().await;
        let mut request = format!("{first} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
        lines
            .iter()
            .for_each(|line| request.push_str(&format!("{line}\r\n")));
        request.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
        stream.write_all(request.as_bytes()).await.unwrap();
        read_all(&mut stream).await
    }
}

async fn read_all(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    // Who is cut off in the middle of sending may see a reset behind the answer.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or(answer)
}

fn body(answer: &str) -> &str {
    answer
        .split_once("\r\n\r\n")
        .map_or(answer, |(_, body)| body)
}

#[tokio::test]
async fn half_a_request_does_not_hold_up_the_end() {
    let running = serve(HttpConfig::default(), None);
    let mut half = running.connect().await;
    half.write_all(b"GET /he").await.unwrap();
    // Answering the next one, the server has looked at the first.
    let whole = running.ask("GET /healthz", &[], "").await;
    assert_eq!(status(&whole), "200");
    running.stop.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(10), running.serving).await;
    ended.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn without_a_sign_in_everybody_on_loopback_is_anonymous_with_all_rights() {
    let running = serve(HttpConfig::default(), None);
    for lines in [
        &[][..],
        &["Authorization: Basic broken"],
        &["Authorization: AWS4-HMAC-SHA256 x"],
    ] {
        let answer = running.ask("GET /api/who", lines, "").await;
        assert_eq!(body(&answer), "anonymous Admin []", "{lines:?}");
    }
}

#[tokio::test]
async fn a_caller_has_name_role_and_groups() {
    let running = signing_in();
    // alice:wonder:land
    let basic = "Authorization: Basic YWxpY2U6d29uZGVyOmxhbmQ=";
    let answer = running.ask("POST /api/who", &[basic], "").await;
    assert_eq!(body(&answer), "alice Operator [\"eu\"]");
}

#[tokio::test]
async fn who_shows_nothing_or_the_wrong_thing_is_told_what_is_asked_for() {
    let running = signing_in();
    for (lines, expected) in [
        (&[][..], "401"),
        (&["Authorization: Basic YWxpY2U6d3Jvbmc="], "401"),
        (&["Authorization: Basic !"], "401"),
        (&["Authorization: Digest x"], "401"),
        (&["Authorization:"], "401"),
        (
            &[
                "Authorization: Bearer scrape",
                "Authorization: Bearer scrape",
            ],
            "401",
        ),
        (&["Authorization: Bearer scrape"], "403"),
        (&["Authorization: Bearer busy"], "429"),
    ] {
        for path in ["GET /api/who", "GET /nowhere", "POST /api/echo", "GET /"] {
            let answer = running.ask(path, lines, "").await;
            assert_eq!(status(&answer), expected, "{path} {lines:?}: {answer}");
            let told: serde_json::Value = serde_json::from_str(body(&answer)).unwrap();
            assert!(told["error"]["message"].is_string(), "{told}");
            assert_eq!(
                answer.contains("www-authenticate: Basic"),
                expected == "401"
            );
        }
    }
}

#[tokio::test]
async fn aws_paths_refuse_in_the_form_of_aws() {
    let running = signing_in();
    for (lines, code, name) in [
        (&[][..], "403", "MissingAuthenticationTokenException"),
        (
            &["Authorization: AWS4-HMAC-SHA256 x"],
            "400",
            "IncompleteSignatureException",
        ),
        (
            &["Authorization: Bearer scrape"],
            "403",
            "AccessDeniedException",
        ),
        (
            &["Authorization: Bearer busy"],
            "400",
            "ThrottlingException",
        ),
        (
            &[
                "Authorization: AWS4-HMAC-SHA256 Credential=X/20260101/r/iot/aws4_request, SignedHeaders=host, Signature=0",
            ],
            "403",
            "UnrecognizedClientException",
        ),
    ] {
        let answer = running.ask("GET /v2LoggingOptions", lines, "").await;
        assert_eq!(status(&answer), code, "{answer}");
        assert!(
            answer.contains(&format!("x-amzn-errortype: {name}\r\n")),
            "{answer}"
        );
        let told: serde_json::Value = serde_json::from_str(body(&answer)).unwrap();
        assert!(
            told["message"].is_string() && told.as_object().unwrap().len() == 1,
            "{told}"
        );
    }
}

#[tokio::test]
async fn health_is_for_everybody_and_metrics_for_who_signs_in_whatever_the_role() {
    let running = signing_in();
    assert_eq!(status(&running.ask("GET /healthz", &[], "").await), "200");
    assert_eq!(status(&running.ask("GET /readyz", &[], "").await), "200");
    assert_eq!(status(&running.ask("GET /metrics", &[], "").await), "401");
    let scrape = ["Authorization: Bearer scrape"];
    assert_eq!(
        status(&running.ask("GET /metrics", &scrape, "").await),
        "200"
    );
    let open = serve(
        HttpConfig {
            sign_in: true,
            ..HttpConfig::default()
        },
        Some(Arc::new(Doorkeeper::default())),
    );
    assert_eq!(status(&open.ask("GET /metrics", &[], "").await), "200");
}

#[tokio::test]
async fn a_foreign_page_changes_nothing_even_with_a_password_that_the_browser_knows() {
    let basic = "Authorization: Basic YWxpY2U6d29uZGVyOmxhbmQ=";
    for running in [signing_in(), serve(HttpConfig::default(), None)] {
        let foreign = [basic, "Origin: http://evil.example"];
        let answer = running.ask("POST /api/who", &foreign, "").await;
        assert_eq!(status(&answer), "403", "{answer}");
        let own = [basic, "Origin: http://localhost"];
        assert_eq!(status(&running.ask("POST /api/who", &own, "").await), "200");
    }
}

#[tokio::test]
async fn large_bodies_and_heads_are_refused() {
    let config = HttpConfig {
        body_bytes: 64 << 10,
        ..HttpConfig::default()
    };
    let running = serve(config, None);
    let fits = "x".repeat(64 << 10);
    assert_eq!(body(&running.ask("POST /api/echo", &[], &fits).await), fits);
    let answer = running
        .ask("POST /api/echo", &[], &format!("{fits}x"))
        .await;
    assert_eq!(status(&answer), "413");
    let long = format!("X: {}", "x".repeat(200 << 10));
    assert_eq!(
        status(&running.ask("GET /api/who", &[&long], "").await),
        "431"
    );
    let many: Vec<String> = (0..200).map(|n| format!("X-{n}: x")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(status(&running.ask("GET /api/who", &many, "").await), "431");
}

#[tokio::test]
async fn who_is_slow_loses_the_connection() {
    let config = HttpConfig {
        timeout_s: 1,
        ..HttpConfig::default()
    };
    let running = serve(config, None);
    let mut head = running.connect().await;
    head.write_all(b"GET /healthz HTTP/1.1\r\nHost: loc")
        .await
        .unwrap();
    let mut sent = running.connect().await;
    let request = b"POST /api/echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nhalf";
    sent.write_all(request).await.unwrap();
    let answer = running.ask("GET /api/slow", &[], "").await;
    assert_eq!(status(&answer), "408");
    assert!(!read_all(&mut head).await.contains(" 200 "));
    assert_eq!(status(&read_all(&mut sent).await), "408");
}

#[tokio::test]
async fn who_reads_nothing_gives_the_place_back() {
    let config = HttpConfig {
        timeout_s: 1,
        connections: 1,
        ..HttpConfig::default()
    };
    let running = serve(config, None);
    let mut unread = running.connect().await;
    unread
        .write_all(b"GET /api/large HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await
        .unwrap();
    while status(&running.ask("GET /healthz", &[], "").await) != "200" {}
    assert!(read_all(&mut unread).await.len() < 64 << 20);
}

#[tokio::test]
async fn one_connection_too_many_hears_so() {
    let config = HttpConfig {
        connections: 2,
        ..HttpConfig::default()
    };
    let running = serve(config, None);
    let held = (running.connect().await, running.connect().await);
    let mut third = running.connect().await;
    assert_eq!(status(&read_all(&mut third).await), "503");
    drop(held);
    while status(&running.ask("GET /healthz", &[], "").await) != "200" {}
}
