use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use axum::routing::{get, post};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::authenticate::{AccessKey, Answer, Denied, Shown, SignedIn};
use super::*;

/// Knows `alice` (password `wonder`, operator of `eu`), the token `scrape` and the key of AWS's examples.
#[derive(Default)]
struct Doorkeeper {
    refused: AtomicUsize,
    /// Nobody who was let in is known any longer.
    removed: Arc<AtomicBool>,
}

fn caller(name: &str, role: Role, groups: &[&str]) -> Caller {
    Caller {
        name: name.into(),
        role,
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
    }
}

impl Authenticate for Doorkeeper {
    fn sign_in<'a>(&'a self, shown: Shown<'a>, _: IpAddr) -> Answer<'a, Result<SignedIn, Denied>> {
        let found = match shown {
            Shown::Password {
                user: "alice",
                password: "wonder:land",
            } => Ok(caller("alice", Role::Operator, &["eu"])),
            Shown::Bearer("scrape") => Ok(caller("prometheus", Role::Other, &[])),
            Shown::Bearer("busy") => Err(Denied::Busy("too many")),
            _ => Err(Denied::Wrong("wrong user name or password")),
        };
        let removed = Arc::clone(&self.removed);
        let signed_in = |caller: Caller| SignedIn {
            caller: caller.clone(),
            still: Arc::new(move || (!removed.load(Ordering::Relaxed)).then(|| caller.clone())),
        };
        Box::pin(async move { found.map(signed_in) })
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
    let kept = answer.contains("cache-control: no-store\r\n");
    assert!(kept, "no browser keeps what alice saw: {answer}");
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
        for path in ["GET /api/who", "GET /nowhere", "POST /api/echo"] {
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

const ALICE: &str = r#"{"name": "alice", "password": "wonder:land"}"#;

/// What a browser would show of the cookie that an answer sets.
fn cookie(answer: &str) -> Option<String> {
    let (_, rest) = answer.split_once("set-cookie: ")?;
    Some(format!("Cookie: other=1; {}", rest.split(';').next()?))
}

#[tokio::test]
async fn who_signs_in_once_shows_a_cookie_from_then_on() {
    let running = signing_in();
    let answer = running.ask("POST /api/v1/session", &[], ALICE).await;
    assert_eq!(status(&answer), "200", "{answer}");
    assert!(
        answer.contains("; Path=/; HttpOnly; SameSite=Strict\r\n"),
        "{answer}"
    );
    assert!(answer.contains("cache-control: no-store"), "{answer}");
    let told: serde_json::Value = serde_json::from_str(body(&answer)).unwrap();
    let expected =
        serde_json::json!({"name": "alice", "role": "operator", "groups": ["eu"], "sign_in": true});
    assert_eq!(told, expected);
    let cookie = cookie(&answer).unwrap();
    let shown = running.ask("GET /api/v1/session", &[&cookie], "").await;
    assert_eq!(body(&shown), body(&answer));
    let who = running.ask("POST /api/who", &[&cookie], "").await;
    assert_eq!(body(&who), "alice Operator [\"eu\"]");
    let ended = running.ask("DELETE /api/v1/session", &[&cookie], "").await;
    assert_eq!(status(&ended), "204");
    assert!(ended.contains("thinglog_session=; ") && ended.contains("; Max-Age=0"));
    for path in ["GET /api/v1/session", "GET /api/who"] {
        let answer = running.ask(path, &[&cookie], "").await;
        assert_eq!(status(&answer), "401", "{answer}");
        assert!(answer.contains("the session has ended"), "{answer}");
    }
}

#[tokio::test]
async fn a_page_that_came_by_tls_gets_a_cookie_for_tls_alone() {
    let running = signing_in();
    let origin = ["Origin: https://localhost"];
    let answer = running.ask("POST /api/v1/session", &origin, ALICE).await;
    assert!(answer.contains("SameSite=Strict; Secure\r\n"), "{answer}");
}

#[tokio::test]
async fn a_session_is_refused_as_any_sign_in_is() {
    let running = signing_in();
    for (lines, body_, expected) in [
        (&[][..], r#"{"name": "alice", "password": "x"}"#, "401"),
        (&[], r#"{"token": "nobody"}"#, "401"),
        (&[], r#"{"token": "busy"}"#, "429"),
        (&[], r#"{"token": "scrape"}"#, "403"),
        (&[], r#"{"name": "alice"}"#, "400"),
        (
            &[],
            r#"{"name": "a", "password": "b", "token": "c"}"#,
            "400",
        ),
        (&[], "", "400"),
        (&["Origin: http://evil.example"], ALICE, "403"),
        (&["Sec-Fetch-Site: cross-site"], ALICE, "403"),
        (
            &[],
            &format!("{{\"token\": \"{}\"}}", "x".repeat(16 << 10)),
            "413",
        ),
    ] {
        let answer = running.ask("POST /api/v1/session", lines, body_).await;
        assert_eq!(status(&answer), expected, "{body_:.60}: {answer}");
        let told: serde_json::Value = serde_json::from_str(body(&answer)).unwrap();
        assert!(told["error"]["message"].is_string(), "{told}");
        assert_eq!(cookie(&answer), None);
        assert!(!answer.contains("www-authenticate"), "{answer}");
    }
    let answer = running.ask("PUT /api/v1/session", &[], "").await;
    assert_eq!(status(&answer), "405");
    assert!(body(&answer).contains("InvalidRequest"), "{answer}");
}

#[tokio::test]
async fn a_page_of_another_origin_changes_nothing_by_a_cookie() {
    let running = signing_in();
    let begun = running.ask("POST /api/v1/session", &[], ALICE).await;
    let cookie = cookie(&begun).unwrap();
    let foreign = [&*cookie, "Origin: http://localhost:9999"];
    for request in ["POST /api/who", "DELETE /api/v1/session"] {
        let answer = running.ask(request, &foreign, "").await;
        assert_eq!(status(&answer), "403", "{answer}");
    }
    let own = [&*cookie, "Origin: http://localhost"];
    assert_eq!(status(&running.ask("POST /api/who", &own, "").await), "200");
}

#[tokio::test]
async fn who_is_removed_is_out() {
    let doorkeeper = Doorkeeper::default();
    let removed = Arc::clone(&doorkeeper.removed);
    let config = HttpConfig {
        sign_in: true,
        ..HttpConfig::default()
    };
    let running = serve(config, Some(Arc::new(doorkeeper)));
    let begun = running.ask("POST /api/v1/session", &[], ALICE).await;
    let cookie = cookie(&begun).unwrap();
    assert_eq!(
        status(&running.ask("GET /api/who", &[&cookie], "").await),
        "200"
    );
    removed.store(true, Ordering::Relaxed);
    assert_eq!(
        status(&running.ask("GET /api/who", &[&cookie], "").await),
        "401"
    );
    removed.store(false, Ordering::Relaxed);
    assert_eq!(
        status(&running.ask("GET /api/who", &[&cookie], "").await),
        "401"
    );
}

#[tokio::test]
async fn a_session_that_is_begun_anew_ends_the_one_before() {
    let running = signing_in();
    let first = running.ask("POST /api/v1/session", &[], ALICE).await;
    let first = cookie(&first).unwrap();
    let second = running.ask("POST /api/v1/session", &[&first], ALICE).await;
    let second = cookie(&second).unwrap();
    assert_ne!(first, second);
    assert_eq!(
        status(&running.ask("GET /api/who", &[&first], "").await),
        "401"
    );
    assert_eq!(
        status(&running.ask("GET /api/who", &[&second], "").await),
        "200"
    );
}

#[tokio::test]
async fn where_nobody_signs_in_the_session_says_so() {
    let running = serve(HttpConfig::default(), None);
    let told = running
        .ask("GET /api/v1/session", &["Cookie: thinglog_session=x"], "")
        .await;
    let told: serde_json::Value = serde_json::from_str(body(&told)).unwrap();
    let expected =
        serde_json::json!({"name": null, "role": "admin", "groups": null, "sign_in": false});
    assert_eq!(told, expected);
    let answer = running.ask("POST /api/v1/session", &[], ALICE).await;
    assert_eq!(status(&answer), "400");
}

#[tokio::test]
async fn pages_are_not_asked_for_a_password_by_the_browser() {
    let running = signing_in();
    for line in [
        "Sec-Fetch-Site: same-origin",
        "X-Requested-With: fetch",
        "Accept: text/event-stream",
    ] {
        let answer = running.ask("GET /api/who", &[line], "").await;
        assert_eq!(status(&answer), "401");
        assert!(!answer.contains("www-authenticate"), "{line}: {answer}");
    }
}

#[tokio::test]
async fn what_nobody_serves_is_not_found_in_the_form_that_was_asked_for() {
    let running = serve(HttpConfig::default(), None);
    let answer = running.ask("GET /nowhere", &[], "").await;
    assert_eq!(status(&answer), "404");
    assert!(
        body(&answer).starts_with("nothing is at this path"),
        "{answer}"
    );
    let signed = ["Authorization: AWS4-HMAC-SHA256 x"];
    let answer = running.ask("GET /nowhere", &signed, "").await;
    assert_eq!(status(&answer), "404");
    assert!(
        answer.contains("x-amzn-errortype: UnknownOperationException"),
        "{answer}"
    );
}

#[cfg(feature = "dashboard")]
#[tokio::test]
async fn the_dashboard_is_shown_before_the_sign_in_and_data_behind_it() {
    let config = HttpConfig {
        sign_in: true,
        address: "127.0.0.1:0".parse().unwrap(),
        ..HttpConfig::default()
    };
    let doorkeeper: Arc<dyn Authenticate> = Arc::new(Doorkeeper::default());
    let mut http = Http::bind(&config, Registry::new(), Health::new(), Some(doorkeeper)).unwrap();
    http.show(thinglog_dashboard::routes());
    let address = http.address().unwrap();
    let stop = CancellationToken::new();
    let serving = tokio::spawn(http.run(stop.clone()));
    let running = Running {
        address,
        stop,
        serving,
    };
    for path in ["GET /", "GET /devices/lamp", "HEAD /sign-in"] {
        let answer = running.ask(path, &[], "").await;
        assert_eq!(status(&answer), "200", "{path}");
        assert!(answer.contains("content-security-policy: "), "{answer}");
    }
    assert_eq!(
        status(&running.ask("GET /api/v1/session", &[], "").await),
        "401"
    );
    let mut stream = running.connect().await;
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(status(&read_all(&mut stream).await), "421");
}
