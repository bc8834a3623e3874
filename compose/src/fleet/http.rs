//! The router's HTTP interface as commands use it: address, login, one call after another, and
//! errors that say what to do.

use std::{
    io::{BufRead, BufReader, ErrorKind},
    path::Path,
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;
use tokio_rustls::rustls::crypto::ring;
use ureq::{
    Agent,
    config::Config,
    http::{Method, Request, Uri},
    tls::{Certificate, RootCerts, TlsConfig},
};

use super::cli;
use crate::login;

const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// A change waits for the broker's disk and for the router to see it.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// Largest answer: a thousand devices with all that they say of themselves.
const MAX_ANSWER: u64 = 64 << 20;
/// How many of a list are asked for at a time, the most there can be.
const PAGE: &str = "1000";

/// The way to the router.
pub(crate) struct Api {
    agent: Agent,
    /// Without the slash at its end.
    base: String,
    login: Option<Login>,
}

/// What is shown to the router.
enum Login {
    Password(String, String),
    Token(String),
}

/// A refusal of the router: its code, as AWS calls it, and the reason.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Refused {
    code: String,
    message: String,
}

/// Whether it failed because what it names does not exist.
pub(crate) fn is_missing(error: &anyhow::Error) -> bool {
    let refused = error.downcast_ref::<Refused>();
    refused.is_some_and(|refused| refused.code == "ResourceNotFound")
}

impl Api {
    /// The interface that the command line names; else the one at `configured`.
    pub(crate) fn new(args: &cli::Api, configured: &str) -> anyhow::Result<Api> {
        let given = args.url.as_deref().unwrap_or(configured);
        let uri = parse(given)?;
        Ok(Api {
            agent: Agent::new_with_config(client(&uri)),
            base: uri.to_string().trim_end_matches('/').to_owned(),
            login: login_of(args)?,
        })
    }

    /// Asks for something.
    pub(crate) fn get(&self, path: &[&str], query: &[(&str, &str)]) -> anyhow::Result<Value> {
        self.call(Method::GET, path, query, None)
    }

    /// The same; `None` when it does not exist.
    pub(crate) fn find(&self, path: &[&str]) -> anyhow::Result<Option<Value>> {
        match self.get(path, &[]) {
            Ok(found) => Ok(Some(found)),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Changes something.
    pub(crate) fn change(
        &self,
        method: Method,
        path: &[&str],
        body: Option<&Value>,
    ) -> anyhow::Result<Value> {
        self.call(method, path, &[], body)
    }

    /// All of a list, page by page, the largest ones unless `query` has a `limit`; `take` sees each entry and says whether to go on.
    pub(crate) fn each(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
        mut take: impl FnMut(Value) -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        let mut cursor: Option<String> = None;
        loop {
            let mut query = query.to_vec();
            if !query.iter().any(|(key, _)| *key == "limit") {
                query.push(("limit", PAGE));
            }
            query.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
            let mut page = self.get(path, &query)?;
            let Some(Value::Array(items)) = page.get_mut("items").map(Value::take) else {
                bail!("{} answered without a list of items", self.base);
            };
            for item in items {
                if !take(item)? {
                    return Ok(());
                }
            }
            let next = page["next"].as_str().map(str::to_owned);
            // A cursor that stands still would never end.
            if next.is_none() || next == cursor {
                return Ok(());
            }
            cursor = next;
        }
    }

    /// All of a list at once.
    pub(crate) fn list(&self, path: &[&str], query: &[(&str, &str)]) -> anyhow::Result<Vec<Value>> {
        let mut items = Vec::new();
        self.each(path, query, |item| {
            items.push(item);
            Ok(true)
        })?;
        Ok(items)
    }

    /// What comes line by line for as long as it comes, behind the message `last` of a stream of events;
    /// `take` sees each line and says whether to go on.
    pub(crate) fn lines(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
        last: Option<&str>,
        mut take: impl FnMut(&str) -> bool,
    ) -> anyhow::Result<()> {
        let mut request = Request::builder().uri(address(&self.base, path, query));
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        if let Some(login) = &self.login {
            request = request.header("authorization", login.header());
        }
        let request = self.agent.configure_request(request.body(())?);
        let answer = self.agent.run(request.timeout_global(None).build());
        let mut answer = answer.map_err(|error| anyhow!(self.unreachable(&error)))?;
        let status = answer.status().as_u16();
        if !(200..300).contains(&status) {
            let body = answer.body_mut().with_config().limit(MAX_ANSWER);
            return self
                .judge(status, &body.read_to_string().unwrap_or_default())
                .map(drop);
        }
        for line in BufReader::new(answer.body_mut().as_reader()).lines() {
            let line = line.with_context(|| format!("the answer of {} broke off", self.base))?;
            if !take(&line) {
                break;
            }
        }
        Ok(())
    }

    fn call(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
        body: Option<&Value>,
    ) -> anyhow::Result<Value> {
        let mut request = Request::builder()
            .method(method)
            .uri(address(&self.base, path, query))
            .header("accept", "application/json");
        if let Some(login) = &self.login {
            request = request.header("authorization", login.header());
        }
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let body = body.map_or_else(Vec::new, |body| body.to_string().into_bytes());
        let answer = self.agent.run(request.body(body)?);
        let mut answer = answer.map_err(|error| anyhow!(self.unreachable(&error)))?;
        let body = answer.body_mut().with_config().limit(MAX_ANSWER);
        let text = body
            .read_to_string()
            .with_context(|| format!("the answer of {} broke off", self.base))?;
        self.judge(answer.status().as_u16(), &text)
    }

    /// The answer, or the refusal in words that help.
    fn judge(&self, status: u16, text: &str) -> anyhow::Result<Value> {
        if (200..300).contains(&status) {
            if text.trim().is_empty() {
                return Ok(Value::Null);
            }
            return serde_json::from_str(text)
                .map_err(|_| anyhow!("{} answers, but is no thinglog router", self.base));
        }
        let error: Value = serde_json::from_str(text).unwrap_or_default();
        let code = error["error"]["code"].as_str().unwrap_or_default();
        let told = error["error"]["message"].as_str().unwrap_or(text.trim());
        let message = match status {
            401 => self.unknown(told),
            403 if !code.is_empty() => format!("{} may not do that: {told}", self.who()),
            _ if code.is_empty() => {
                let told: String = told.chars().take(200).collect();
                format!(
                    "{} answers {status} ({told}); is it a thinglog router of this version?",
                    self.base
                )
            }
            503 => format!("{told} ({code}); look before you try again"),
            _ => format!("{told} ({code})"),
        };
        let code = code.to_owned();
        Err(Refused { code, message }.into())
    }

    fn unknown(&self, told: &str) -> String {
        match &self.login {
            None => format!(
                "{} asks who you are; see --username and --password-file, or THINGLOG_USERNAME and \
                 THINGLOG_PASSWORD, or --token-file",
                self.base
            ),
            Some(Login::Password(user, _)) => format!(
                "{} does not let {user:?} in: {told}; see --username and --password-file",
                self.base
            ),
            Some(Login::Token(_)) => {
                format!("{} does not take the token: {told}", self.base)
            }
        }
    }

    fn who(&self) -> String {
        match &self.login {
            None => "a client without a user name".into(),
            Some(Login::Password(user, _)) => format!("the user {user:?}"),
            Some(Login::Token(_)) => "the bearer of this token".into(),
        }
    }

    fn unreachable(&self, error: &ureq::Error) -> String {
        let base = &self.base;
        match error {
            ureq::Error::Io(io) if io.kind() == ErrorKind::ConnectionRefused => format!(
                "no router answers at {base}: is it running (thinglog up, or thinglog router)? \
                 Its address is router.http.address; --url names another"
            ),
            ureq::Error::Timeout(_) => {
                format!("no answer from {base} in time; whether a change was made is not known")
            }
            ureq::Error::Protocol(_) => {
                format!("{base} does not speak HTTP; is it the broker's address? {error}")
            }
            error => format!("cannot reach the router at {base}: {error}"),
        }
    }
}

impl Login {
    fn header(&self) -> String {
        match self {
            Login::Password(user, password) => {
                format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
            }
            Login::Token(token) => format!("Bearer {token}"),
        }
    }
}

/// The token, else the name with its password, else the token of the environment, else nobody.
fn login_of(args: &cli::Api) -> anyhow::Result<Option<Login>> {
    if let Some(file) = &args.token_file {
        return token_in(file).map(Some);
    }
    if let Some(user) = args.username.clone().filter(|user| !user.is_empty()) {
        let password = login::password(args.password_file.as_deref())?;
        return Ok(Some(Login::Password(user, password)));
    }
    let of_environment = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
    if let Some(file) = of_environment("THINGLOG_TOKEN_FILE") {
        return token_in(Path::new(&file)).map(Some);
    }
    Ok(of_environment("THINGLOG_TOKEN").map(Login::Token))
}

fn token_in(file: &Path) -> anyhow::Result<Login> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("cannot read the token file {}", file.display()))?;
    Ok(Login::Token(text.trim().to_owned()))
}

fn parse(url: &str) -> anyhow::Result<Uri> {
    let wrong = || anyhow!("{url:?} is no address of HTTP; write http://HOST:PORT");
    let uri: Uri = url.parse().map_err(|_| wrong())?;
    let known = matches!(uri.scheme_str(), Some("http" | "https"));
    if !known || uri.host().is_none_or(str::is_empty) || uri.query().is_some() {
        return Err(wrong());
    }
    Ok(uri)
}

fn client(uri: &Uri) -> Config {
    let host = uri.host().unwrap_or_default();
    let ip = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    let here = host == "localhost" || ip.is_ok_and(|ip| ip.to_canonical().is_loopback());
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .timeout_connect(Some(CONNECT_WITHIN))
        .timeout_global(Some(ANSWER_WITHIN))
        .user_agent(concat!("thinglog/", env!("CARGO_PKG_VERSION")));
    let config = match uri.scheme_str() {
        Some("https") => config.tls_config(tls()),
        _ => config,
    };
    match here {
        // A proxy of the environment is for what is elsewhere.
        true => config.proxy(None).build(),
        false => config.build(),
    }
}

/// Authorities are those of the system.
fn tls() -> TlsConfig {
    let found = rustls_native_certs::load_native_certs().certs;
    let certificates: Vec<_> = found
        .iter()
        .map(|certificate| Certificate::from_der(certificate).to_owned())
        .collect();
    TlsConfig::builder()
        .root_certs(RootCerts::new_with_certs(&certificates))
        .unversioned_rustls_crypto_provider(ring::default_provider().into())
        .build()
}

/// The address of a resource below `/api/v1`. Names are percent-encoded (RFC 3986 section 2.1).
fn address(base: &str, path: &[&str], query: &[(&str, &str)]) -> String {
    let mut address = format!("{base}/api/v1");
    for part in path {
        address.push('/');
        encode(part, &mut address);
    }
    for (n, (name, value)) in query.iter().enumerate() {
        address.push(if n == 0 { '?' } else { '&' });
        address.push_str(name);
        address.push('=');
        encode(value, &mut address);
    }
    address
}

fn encode(text: &str, out: &mut String) {
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn api(login: Option<Login>) -> Api {
        Api {
            agent: Agent::new_with_defaults(),
            base: "http://127.0.0.1:8080".into(),
            login,
        }
    }

    fn password() -> Option<Login> {
        Some(Login::Password("alice".into(), "wonder".into()))
    }

    #[test]
    fn names_cannot_leave_their_place_in_the_address() {
        let made = address(
            "http://x",
            &["levels", "source", "a%20b/../c"],
            &[("query", "model = \"x&y\""), ("limit", "5")],
        );
        let expected = "http://x/api/v1/levels/source/a%2520b%2F..%2Fc\
                        ?query=model%20%3D%20%22x%26y%22&limit=5";
        assert_eq!(made, expected);
    }

    #[test]
    fn refusals_say_what_to_do() {
        let refused = |api: Api, status, code: &str| {
            let body = serde_json::json!({"error": {"code": code, "message": "why"}});
            api.judge(status, &body.to_string())
                .unwrap_err()
                .to_string()
        };
        let told = refused(api(None), 401, "Unauthorized");
        assert!(
            told.contains("asks who you are") && told.contains("--password-file"),
            "{told}"
        );
        let told = refused(api(password()), 401, "Unauthorized");
        assert!(told.contains("does not let \"alice\" in: why"), "{told}");
        let told = refused(api(password()), 403, "Unauthorized");
        assert_eq!(told, "the user \"alice\" may not do that: why");
        let told = refused(api(None), 410, "LimitExceeded");
        assert_eq!(told, "why (LimitExceeded)");
        let told = api(None).judge(404, "<html>").unwrap_err().to_string();
        assert!(
            told.contains("a thinglog router of this version?"),
            "{told}"
        );
        let told = api(None).judge(200, "<html>").unwrap_err().to_string();
        assert!(told.contains("is no thinglog router"), "{told}");
        assert_eq!(api(None).judge(204, "").unwrap(), Value::Null);
    }

    #[test]
    fn where_nobody_listens_the_command_to_start_is_named() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let args = cli::Api {
            url: Some(url.clone()),
            username: None,
            password_file: None,
            token_file: None,
            json: false,
        };
        let api = Api::new(&args, "http://never").unwrap();
        let error = api.get(&["levels"], &[]).unwrap_err().to_string();
        assert!(
            error.contains(&url) && error.contains("thinglog up"),
            "{error}"
        );
    }

    #[test]
    fn only_addresses_of_http_are_taken() {
        for url in ["http://a:8080", "https://logs.example.com/thinglog"] {
            assert!(parse(url).is_ok(), "{url}");
        }
        for url in ["localhost:8080", "mqtt://a", "http://", "", "http://a/?x=1"] {
            assert!(parse(url).is_err(), "{url}");
        }
    }
}
