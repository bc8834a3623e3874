//! What destinations of AWS have in common: credentials, and requests signed with them.

pub(crate) mod credentials;
mod sources;

use reqwest::Url;
use thinglog_schemas::json;

use super::http::{HeaderMap, HeaderValue};
use crate::sigv4::{self, ALGORITHM, Canonical, DATE, TOKEN};
use credentials::Credentials;

/// Whom requests are signed for.
#[derive(Clone, Debug)]
pub(crate) struct Signer {
    pub(crate) region: String,
    pub(crate) service: &'static str,
}

impl Signer {
    /// Adds date, token and signature to the headers of a POST; all that are there are signed. `now` is
    /// ns since the Unix epoch. The error names what no header may have.
    pub(crate) fn sign(
        &self,
        credentials: &Credentials,
        url: &Url,
        headers: &mut HeaderMap,
        body: &[u8],
        now: u64,
    ) -> Result<(), String> {
        let date = date_text(now);
        let mut add = |name: &'static str, value: &str| {
            let value = HeaderValue::from_str(value);
            let mut value = value.map_err(|_| format!("{name} has characters it must not have"))?;
            value.set_sensitive(name != DATE);
            headers.insert(name, value);
            Ok::<_, String>(())
        };
        add(DATE, &date)?;
        if let Some(token) = &credentials.token {
            add(TOKEN, token)?;
        }
        let own = headers.iter();
        let mut signed: Vec<(&str, String)> = own
            .map(|(name, value)| {
                let value = sigv4::canonical_value([value.as_bytes()].into_iter());
                (name.as_str(), value)
            })
            .chain([("host", host(url))])
            .collect();
        signed.sort();
        let canonical = Canonical {
            method: "POST",
            path: &sigv4::canonical_path(url.path()),
            query: &sigv4::canonical_query(url.query().unwrap_or_default()),
            headers: &signed,
            body_hash: &sigv4::hash(body),
        };
        let scope = [&date[..8], &self.region, self.service, "aws4_request"];
        let authorization = format!(
            "{ALGORITHM} Credential={}/{}, SignedHeaders={}, Signature={}",
            credentials.key_id,
            scope.join("/"),
            canonical.signed_headers(),
            canonical.signature(&credentials.secret, &scope, &date),
        );
        let value = HeaderValue::from_str(&authorization);
        let mut value = value.map_err(|_| "the access key id has characters it must not have")?;
        value.set_sensitive(true);
        headers.insert("authorization", value);
        Ok(())
    }
}

/// `20150830T123600Z`.
fn date_text(now: u64) -> String {
    let mut text = Vec::new();
    json::write_time(now, &mut text);
    let digits = text.iter().take(19).filter(|byte| !b"-:".contains(byte));
    let mut text: String = digits.map(|byte| char::from(*byte)).collect();
    text.push('Z');
    text
}

/// As the header says it: the port only where it is not the scheme's own.
fn host(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

/// The end of AWS's host names in a region.
pub(crate) fn domain(region: &str) -> &'static str {
    match region {
        region if region.starts_with("cn-") => "amazonaws.com.cn",
        _ => "amazonaws.com",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed(url: &str, token: Option<&str>, body: &str) -> HeaderMap {
        let credentials = Credentials {
            key_id: "AKIDEXAMPLE".into(),
            secret: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".into(),
            token: token.map(str::to_owned),
            expires: None,
        };
        let signer = Signer {
            region: "us-east-1".into(),
            service: "service",
        };
        let mut headers = HeaderMap::new();
        if !body.is_empty() {
            let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
            headers.insert("content-type", kind);
        }
        let now = json::parse_time("2015-08-30T12:36:00Z").unwrap();
        let url = Url::parse(url).unwrap();
        let done = signer.sign(&credentials, &url, &mut headers, body.as_bytes(), now);
        done.unwrap();
        headers
    }

    fn signature(headers: &HeaderMap) -> &str {
        let value = headers["authorization"].to_str().unwrap();
        value.rsplit_once("Signature=").unwrap().1
    }

    /// AWS's "Signature Version 4 test suite": post-vanilla, post-vanilla-query,
    /// post-x-www-form-urlencoded.
    #[test]
    fn signatures_are_those_of_aws() {
        for (url, body, expected) in [
            (
                "https://example.amazonaws.com/",
                "",
                "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
            ),
            (
                "https://example.amazonaws.com/?Param1=value1",
                "",
                "28038455d6de14eafc1f9222cf5aa6f1a96197d7deb8263271d420d138af7f11",
            ),
            (
                "https://example.amazonaws.com:443/",
                "Param1=value1",
                "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
            ),
        ] {
            let headers = signed(url, None, body);
            assert_eq!(signature(&headers), expected, "{url}");
            assert_eq!(headers["x-amz-date"], "20150830T123600Z");
            assert!(headers["authorization"].is_sensitive());
        }
    }

    #[test]
    fn a_session_token_and_a_port_are_signed() {
        let url = "https://example.amazonaws.com:8443/";
        let (without, with) = (signed(url, None, ""), signed(url, Some("t"), ""));
        assert_eq!(with["x-amz-security-token"], "t");
        let names = with["authorization"].to_str().unwrap();
        assert!(names.contains("SignedHeaders=host;x-amz-date;x-amz-security-token,"));
        assert_ne!(signature(&without), signature(&with));
        let usual = signed("https://example.amazonaws.com/", None, "");
        assert_ne!(signature(&without), signature(&usual));
    }
}
