//! From HTTP to WebSocket (RFC 6455 section 4.2): the one request of a connection is read with a limit,
//! judged, and answered with 101 or with the reason why not.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tracing::debug;
use tungstenite::{
    handshake::{
        machine::TryParse,
        server::{Request, create_response, write_response},
    },
    http::{HeaderMap, HeaderValue},
};

use super::rules::{Denied, Rules};

/// Longest request; browsers send cookies of the host along.
const MAX_REQUEST: usize = 16 << 10;
const END: &[u8] = b"\r\n\r\n";

/// A request that is not upgraded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Refusal {
    status: &'static str,
    /// For the metrics.
    reason: &'static str,
    /// For whoever sent the request.
    hint: &'static str,
}

impl Refusal {
    const TOO_LARGE: Refusal = Refusal {
        status: "431 Request Header Fields Too Large",
        reason: "WebSocket request too large",
        hint: "The request is longer than 16 KiB.",
    };
    const BAD: Refusal = Refusal {
        status: "400 Bad Request",
        reason: "not a WebSocket request",
        hint: "This is not a request that a WebSocket begins with.",
    };
    const HOST: Refusal = Refusal {
        status: "403 Forbidden",
        reason: "WebSocket host not allowed",
        hint: "The broker is not known by this name (broker.websocket.hosts lists those it is known by).",
    };
    const ORIGIN: Refusal = Refusal {
        status: "403 Forbidden",
        reason: "WebSocket origin not allowed",
        hint: "Pages of this origin may not connect (broker.websocket.origins lists those that may).",
    };
    const PATH: Refusal = Refusal {
        status: "404 Not Found",
        reason: "WebSocket path unknown",
        hint: "MQTT over WebSocket is at /mqtt.",
    };
    const PLAIN: Refusal = Refusal {
        status: "426 Upgrade Required\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13",
        reason: "not a WebSocket request",
        hint: "This port speaks MQTT over WebSocket.",
    };
    const SUBPROTOCOL: Refusal = Refusal {
        status: "400 Bad Request",
        reason: "WebSocket without subprotocol mqtt",
        hint: "Offer the subprotocol mqtt (Sec-WebSocket-Protocol).",
    };

    fn response(self) -> Vec<u8> {
        let Refusal { status, hint, .. } = self;
        let length = hint.len() + 1;
        format!(
            "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Type: text/plain\r\n\
             X-Content-Type-Options: nosniff\r\nContent-Length: {length}\r\n\r\n{hint}\n"
        )
        .into_bytes()
    }
}

/// Upgrades a new connection; the reason if it is refused, `None` if the peer left.
pub(crate) async fn upgrade<S>(stream: &mut S, rules: &Rules) -> Result<(), Option<&'static str>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let answered = match read_request(stream).await? {
        Some(request) => answer(&request, rules),
        None => Err(Refusal::TOO_LARGE),
    };
    let response = match &answered {
        Ok(response) => response.clone(),
        Err(refusal) => refusal.response(),
    };
    let written = async {
        stream.write_all(&response).await?;
        stream.flush().await
    };
    written.await.map_err(|_| None)?;
    match answered {
        Ok(_) => Ok(()),
        Err(refusal) => {
            let _ = stream.shutdown().await;
            Err(Some(refusal.reason))
        }
    }
}

/// The request and nothing behind it; `Ok(None)` if it is too long.
async fn read_request<S>(stream: &mut S) -> Result<Option<Vec<u8>>, Option<&'static str>>
where
    S: AsyncRead + Unpin,
{
    let mut request = Vec::with_capacity(1024);
    let mut searched = 0;
    loop {
        match stream.read_buf(&mut request).await {
            Ok(0) | Err(_) => return Err(None),
            Ok(_) => {}
        }
        if request[searched..]
            .windows(END.len())
            .any(|window| window == END)
        {
            return Ok(Some(request));
        }
        if request.len() >= MAX_REQUEST {
            return Ok(None);
        }
        searched = request.len().saturating_sub(END.len() - 1);
    }
}

/// Judges a request: the response that upgrades, or why not.
fn answer(bytes: &[u8], rules: &Rules) -> Result<Vec<u8>, Refusal> {
    let (length, request) = Request::try_parse(bytes)
        .ok()
        .flatten()
        .ok_or(Refusal::BAD)?;
    // A client has to wait for the answer before it sends more (RFC 6455 section 4.1).
    if length != bytes.len() || request.uri().authority().is_some() {
        return Err(Refusal::BAD);
    }
    let headers = request.headers();
    let host = only(headers, "host")?.ok_or(Refusal::BAD)?;
    let origin = only(headers, "origin")?;
    rules.check(host, origin).map_err(|denied| {
        debug!(host, origin, "a WebSocket request is denied");
        match denied {
            Denied::Host => Refusal::HOST,
            Denied::Origin => Refusal::ORIGIN,
        }
    })?;
    if !matches!(request.uri().path(), "/" | "/mqtt") {
        return Err(Refusal::PATH);
    }
    let mut response = create_response(&request).map_err(|_| Refusal::PLAIN)?;
    let subprotocol = subprotocol(headers).ok_or(Refusal::SUBPROTOCOL)?;
    let chosen = HeaderValue::from_static(subprotocol);
    response
        .headers_mut()
        .insert("sec-websocket-protocol", chosen);
    let mut out = Vec::with_capacity(256);
    write_response(&mut out, &response).map_err(|_| Refusal::BAD)?;
    Ok(out)
}

/// A header that may come once; its text if it comes.
fn only<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Refusal> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(Some).map_err(|_| Refusal::BAD),
        (Some(_), Some(_)) => Err(Refusal::BAD),
    }
}

/// The offered subprotocol that is spoken here: `mqtt` (MQTT 5.0 section 6), else the name it had before
/// it was registered.
fn subprotocol(headers: &HeaderMap) -> Option<&'static str> {
    let values = headers.get_all("sec-websocket-protocol").iter();
    let offered: Vec<&str> = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .collect();
    ["mqtt", "mqttv3.1"]
        .into_iter()
        .find(|spoken| offered.contains(spoken))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "GET /mqtt HTTP/1.1\r\nHost: localhost:8083\r\nConnection: keep-alive, Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Protocol: mqtt\r\n\r\n";

    fn judged(request: &str) -> Result<String, Refusal> {
        answer(request.as_bytes(), &Rules::default()).map(|out| String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_good_request_is_upgraded() {
        let response = judged(GOOD).unwrap();
        assert!(response.starts_with("HTTP/1.1 101 "), "{response}");
        // The example of RFC 6455 section 1.3.
        assert!(
            response.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
            "{response}"
        );
        assert!(
            response.contains("sec-websocket-protocol: mqtt\r\n"),
            "{response}"
        );
        for path in ["/", "/mqtt?token=1"] {
            judged(&GOOD.replace("/mqtt", path)).unwrap();
        }
    }

    #[test]
    fn the_registered_subprotocol_comes_first() {
        for (offered, chosen) in [
            ("mqttv3.1, mqtt", "mqtt"),
            ("other,mqttv3.1", "mqttv3.1"),
            ("x\r\nSec-WebSocket-Protocol: mqtt", "mqtt"),
        ] {
            let response = judged(&GOOD.replace("Protocol: mqtt", &format!("Protocol: {offered}")));
            let line = format!("sec-websocket-protocol: {chosen}\r\n");
            assert!(response.unwrap().contains(&line), "{offered}");
        }
    }

    #[test]
    fn every_refusal_says_why() {
        let cases = [
            ("Host: localhost:8083", "Host: evil.example", Refusal::HOST),
            ("Host: localhost:8083\r\n", "", Refusal::BAD),
            (
                "Host: localhost:8083",
                "Host: localhost\r\nHost: evil.example",
                Refusal::BAD,
            ),
            (
                "\r\n\r\n",
                "\r\nOrigin: http://evil.example\r\n\r\n",
                Refusal::ORIGIN,
            ),
            (
                "\r\n\r\n",
                "\r\nOrigin: http://localhost:8083\r\nOrigin: http://evil.example\r\n\r\n",
                Refusal::BAD,
            ),
            ("GET /mqtt", "GET /other", Refusal::PATH),
            ("GET /mqtt", "GET http://evil.example/mqtt", Refusal::BAD),
            ("GET", "POST", Refusal::BAD),
            ("HTTP/1.1", "HTTP/1.0", Refusal::BAD),
            ("Upgrade: websocket", "Upgrade: h2c", Refusal::PLAIN),
            ("Version: 13", "Version: 8", Refusal::PLAIN),
            ("Protocol: mqtt", "Protocol: amqp", Refusal::SUBPROTOCOL),
            ("Sec-WebSocket-Protocol: mqtt\r\n", "", Refusal::SUBPROTOCOL),
            ("\r\n\r\n", "\r\n\r\n\x10", Refusal::BAD),
            ("GET", "\x16\x03\x01", Refusal::BAD),
        ];
        for (from, to, refusal) in cases {
            assert!(GOOD.contains(from));
            assert_eq!(judged(&GOOD.replacen(from, to, 1)), Err(refusal), "{to}");
        }
    }

    #[tokio::test]
    async fn a_request_in_pieces_is_upgraded() {
        let (mut client, mut server) = tokio::io::duplex(64 << 10);
        let serving = tokio::spawn(async move { upgrade(&mut server, &Rules::default()).await });
        for byte in GOOD.as_bytes() {
            client.write_all(&[*byte]).await.unwrap();
        }
        assert_eq!(serving.await.unwrap(), Ok(()));
    }

    #[tokio::test]
    async fn a_request_without_end_is_cut_short() {
        let (mut client, mut server) = tokio::io::duplex(64 << 10);
        let serving = tokio::spawn(async move { upgrade(&mut server, &Rules::default()).await });
        let endless = vec![b'a'; MAX_REQUEST];
        client.write_all(&endless).await.unwrap();
        let mut response = String::new();
        client.read_to_string(&mut response).await.unwrap();
        assert!(response.starts_with("HTTP/1.1 431 "), "{response}");
        let refused = Err(Some(Refusal::TOO_LARGE.reason));
        assert_eq!(serving.await.unwrap(), refused);
    }
}
