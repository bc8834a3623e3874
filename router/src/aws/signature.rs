//! AWS Signature Version 4, verified: who holds the secret of an access key, and that what arrived is
//! what they signed. Pure: time is an argument.
//!
//! How a signature is made stands in [`sigv4`]. Every region is taken; services are `iot`,
//! `execute-api` and `thinglog`. `host` and every `x-amz-…` header must be signed. The time may differ
//! by 15 minutes. There are no session tokens and no signatures in the query.

use std::borrow::Cow;

use axum::http::StatusCode;
use axum::http::request::Parts;
use subtle::ConstantTimeEq;
use thinglog_schemas::json;

pub(crate) use crate::sigv4::ALGORITHM;
use crate::sigv4::{self, Canonical, DATE, Scope, TOKEN};

/// How far the client's clock may be off, ns.
const SKEW: u64 = 15 * 60 * 1_000_000_000;
const SERVICES: [&str; 3] = ["iot", "execute-api", "thinglog"];
const CONTENT_HASH: &str = "x-amz-content-sha256";
/// In the place of the body's hash: the client leaves the body out of the signature.
const UNSIGNED: &str = "UNSIGNED-PAYLOAD";

/// Why a signature does not count. Secrets are not in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    #[error("the Authorization header is incomplete: {0}")]
    Incomplete(&'static str),
    #[error("the access key is not known")]
    UnknownKey,
    #[error("the security token is not known; access keys need none")]
    SessionToken,
    #[error("the body is longer than {0} bytes")]
    TooLarge(usize),
    #[error("the credential's scope is not valid: {0}")]
    Scope(String),
    #[error("the signature does not cover the header {0:?}")]
    Uncovered(String),
    #[error(
        "signature expired: {signed} is more than 15 minutes before {now}, which is the time here"
    )]
    Expired { signed: String, now: String },
    #[error(
        "signature not yet current: {signed} is more than 15 minutes after {now}, which is the time here"
    )]
    Early { signed: String, now: String },
    #[error("x-amz-content-sha256 is not the hash of the body")]
    Body,
    #[error(
        "the signature is not that of this request: check the secret access key and how the request is signed"
    )]
    Mismatch,
}

impl Error {
    /// Status and name, as AWS answers.
    pub(crate) fn answer(&self) -> (StatusCode, &'static str) {
        match self {
            Error::Incomplete(_) => (StatusCode::BAD_REQUEST, "IncompleteSignatureException"),
            Error::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, "InvalidRequestException"),
            Error::UnknownKey | Error::SessionToken => {
                (StatusCode::FORBIDDEN, "UnrecognizedClientException")
            }
            _ => (StatusCode::FORBIDDEN, "InvalidSignatureException"),
        }
    }

    /// Whether it may have been an attempt to find a key or a secret.
    pub(crate) fn is_guess(&self) -> bool {
        matches!(self, Error::UnknownKey | Error::Mismatch)
    }
}

/// An `Authorization` header, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Authorization<'a> {
    /// Id of the access key.
    pub(crate) key_id: &'a str,
    scope: Scope<'a>,
    /// Names of headers, in lower case and sorted.
    signed: Vec<&'a str>,
    signature: &'a str,
}

impl<'a> Authorization<'a> {
    /// Reads the header's value; [`Error::Incomplete`] names what is missing.
    pub(crate) fn parse(value: &'a str) -> Result<Authorization<'a>, Error> {
        let rest = value.strip_prefix(ALGORITHM);
        let rest = rest.ok_or(Error::Incomplete("the algorithm is not AWS4-HMAC-SHA256"))?;
        let (mut credential, mut headers, mut signature) = (None, None, None);
        for part in rest.split(',') {
            let place = match part.trim().split_once('=') {
                Some(("Credential", value)) => credential.replace(value),
                Some(("SignedHeaders", value)) => headers.replace(value),
                Some(("Signature", value)) => signature.replace(value),
                _ => {
                    return Err(Error::Incomplete(
                        "expected Credential=…, SignedHeaders=…, Signature=…",
                    ));
                }
            };
            if place.is_some() {
                return Err(Error::Incomplete("a part is there twice"));
            }
        }
        let credential = credential.ok_or(Error::Incomplete("Credential is missing"))?;
        let headers = headers.ok_or(Error::Incomplete("SignedHeaders is missing"))?;
        let signature = signature.ok_or(Error::Incomplete("Signature is missing"))?;
        let mut parts = credential.rsplitn(5, '/');
        let mut part = || parts.next().filter(|part| !part.is_empty());
        let (Some(end), Some(service), Some(region), Some(day), Some(key_id)) =
            (part(), part(), part(), part(), part())
        else {
            return Err(Error::Incomplete(
                "Credential is not KEY/DAY/REGION/SERVICE/aws4_request",
            ));
        };
        Ok(Authorization {
            key_id,
            scope: [day, region, service, end],
            signed: headers.split(';').collect(),
            signature,
        })
    }

    /// Whether the holder of `secret` signed this request not more than 15 minutes from `now` (ns since
    /// the Unix epoch).
    pub(crate) fn verify(
        &self,
        secret: &str,
        request: &Parts,
        body: &[u8],
        now: u64,
    ) -> Result<(), Error> {
        let date = self.check(request, now)?;
        let expected = self.expected(secret, request, &body_hash(request, body)?, date)?;
        match bool::from(expected.as_bytes().ct_eq(self.signature.as_bytes())) {
            true => Ok(()),
            false => Err(Error::Mismatch),
        }
    }

    /// Everything that can be judged without the secret and before the body is there; the date signed.
    pub(crate) fn check<'b>(&self, request: &'b Parts, now: u64) -> Result<&'b str, Error> {
        let date = single(request, DATE).ok_or(Error::Incomplete("x-amz-date is missing"))?;
        self.check_scope(date)?;
        self.check_headers(request)?;
        check_time(date, now)?;
        Ok(date)
    }

    /// The signature that the holder of `secret` would have made.
    fn expected(
        &self,
        secret: &str,
        request: &Parts,
        body_hash: &str,
        date: &str,
    ) -> Result<String, Error> {
        let mut headers = Vec::with_capacity(self.signed.len());
        for name in &self.signed {
            let mut values = request.headers.get_all(*name).iter().peekable();
            if values.peek().is_none() {
                return Err(Error::Uncovered((*name).to_owned()));
            }
            let values = values.map(axum::http::HeaderValue::as_bytes);
            headers.push((*name, sigv4::canonical_value(values)));
        }
        let canonical = Canonical {
            method: request.method.as_str(),
            path: &sigv4::canonical_path(request.uri.path()),
            query: &sigv4::canonical_query(request.uri.query().unwrap_or_default()),
            headers: &headers,
            body_hash,
        };
        Ok(canonical.signature(secret, &self.scope, date))
    }

    fn check_scope(&self, date: &str) -> Result<(), Error> {
        let [day, _, service, end] = self.scope;
        if end != "aws4_request" {
            return Err(Error::Scope("it must end in aws4_request".into()));
        }
        if !date.starts_with(day) || day.len() != 8 {
            return Err(Error::Scope(format!(
                "its day is not that of x-amz-date, {date}"
            )));
        }
        if !SERVICES.contains(&service) {
            return Err(Error::Scope(format!(
                "{service:?} is no service here; sign for iot"
            )));
        }
        Ok(())
    }

    fn check_headers(&self, request: &Parts) -> Result<(), Error> {
        if request.headers.contains_key(TOKEN) {
            return Err(Error::SessionToken);
        }
        let covers = |name: &str| self.signed.contains(&name);
        let own = request.headers.keys().map(axum::http::HeaderName::as_str);
        let mut needed = own
            .filter(|name| name.starts_with("x-amz-"))
            .chain(["host"]);
        match needed.find(|name| !covers(name)) {
            Some(name) => Err(Error::Uncovered(name.to_owned())),
            None => Ok(()),
        }
    }
}

/// The value of a header that must be there once.
fn single<'a>(request: &'a Parts, name: &str) -> Option<&'a str> {
    let mut values = request.headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

fn check_time(date: &str, now: u64) -> Result<(), Error> {
    let signed = parse_date(date).ok_or(Error::Incomplete("x-amz-date is not YYYYMMDDTHHMMSSZ"))?;
    let text = || {
        let mut text = Vec::new();
        json::write_time(now, &mut text);
        String::from_utf8_lossy(&text).into_owned()
    };
    let times = |signed: &str| (signed.to_owned(), text());
    if now.saturating_sub(signed) > SKEW {
        let (signed, now) = times(date);
        return Err(Error::Expired { signed, now });
    }
    if signed.saturating_sub(now) > SKEW {
        let (signed, now) = times(date);
        return Err(Error::Early { signed, now });
    }
    Ok(())
}

/// `20150830T123600Z` in ns since the Unix epoch.
fn parse_date(date: &str) -> Option<u64> {
    let bytes = date.as_bytes();
    let fits = bytes.len() == 16 && bytes[8] == b'T' && bytes[15] == b'Z';
    if !fits || !date.is_ascii() {
        return None;
    }
    let [year, month, day] = [&date[..4], &date[4..6], &date[6..8]];
    let [hour, minute, second] = [&date[9..11], &date[11..13], &date[13..15]];
    json::parse_time(&format!("{year}-{month}-{day}T{hour}:{minute}:{second}Z"))
}

/// The body's hash as it was signed.
fn body_hash<'a>(request: &'a Parts, body: &[u8]) -> Result<Cow<'a, str>, Error> {
    let hash = sigv4::hash(body);
    match single(request, CONTENT_HASH) {
        Some(UNSIGNED) => Ok(Cow::Borrowed(UNSIGNED)),
        Some(claimed) if claimed != hash => Err(Error::Body),
        _ => Ok(Cow::Owned(hash)),
    }
}

#[cfg(test)]
#[path = "signature_tests.rs"]
mod tests;
