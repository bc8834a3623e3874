//! Tokens of an issuer (JWT, RFC 7519) in the place of the password. A claim names the principal, and
//! others may name its role and groups; the user name of the connection says nothing.
//!
//! `exp` is required: a connection ends when its token does. `nbf`, `aud` and `iss` are checked where
//! they are there or configured. Time is an argument.

use std::sync::Arc;

use jsonwebtoken::{Algorithm, Validation};
use serde_json::{Map, Value};

use super::{config::Jwt, keys::Key, password, roles::Grant, roles::Role};

/// Longest token, bytes.
const MAX_TOKEN: usize = 16 << 10;
/// How far the issuer's clock may be ahead for `nbf`, seconds.
const AHEAD: f64 = 60.0;

/// Keys and what tokens have to say.
#[derive(Debug)]
pub(crate) struct Issuer {
    pub(crate) keys: Vec<Key>,
    pub(crate) config: Jwt,
}

/// What a valid token says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Claims {
    pub(crate) principal: Arc<str>,
    pub(crate) grant: Grant,
    /// ns since the epoch.
    pub(crate) expires: u64,
    /// Of the key that signed it.
    pub(crate) key: [u8; 32],
}

/// Whether a password has the form of a token: three parts, the first a JSON object.
pub(crate) fn is_jwt(password: &str) -> bool {
    let mut parts = password.split('.');
    let parts = [parts.next(), parts.next(), parts.next(), parts.next()];
    matches!(parts, [Some(header), Some(_), Some(_), None] if header.starts_with("ey"))
}

impl Issuer {
    /// Verifies a token at `now` (ns since the epoch); the reason why not is for log and metrics.
    pub(crate) fn verify(&self, token: &str, now: u64) -> Result<Claims, &'static str> {
        if token.len() > MAX_TOKEN {
            return Err("token is longer than 16 KiB");
        }
        let header = header(token).ok_or("token is malformed")?;
        if header.contains_key("crit") {
            return Err("token has critical headers that are not known");
        }
        let id = header.get("kid").and_then(Value::as_str);
        let algorithm = header
            .get("alg")
            .and_then(Value::as_str)
            .and_then(algorithm)
            .ok_or("token is signed by an algorithm that is not taken")?;
        let fits = |key: &&Key| {
            key.algorithm == algorithm
                && (id.is_none() || key.id.is_none() || key.id.as_deref() == id)
        };
        let verified = self.keys.iter().filter(fits).find_map(|key| {
            let claims = signed_by(token, key)?;
            Some((claims, key.fingerprint))
        });
        let (claims, key) = verified.ok_or("token is not signed by a known key")?;
        self.judge(&claims, key, now)
    }

    /// Whether a key of this fingerprint is among the keys.
    pub(crate) fn has(&self, fingerprint: &[u8; 32]) -> bool {
        self.keys.iter().any(|key| key.fingerprint == *fingerprint)
    }

    fn judge(
        &self,
        claims: &Map<String, Value>,
        key: [u8; 32],
        now: u64,
    ) -> Result<Claims, &'static str> {
        let config = &self.config;
        let seconds = now as f64 / 1e9;
        let time = |name: &str| claims.get(name).map(|value| value.as_f64().ok_or(()));
        let ends = match time("exp") {
            Some(Ok(ends)) => ends,
            Some(Err(())) => return Err("token's exp is no number"),
            None => return Err("token has no exp"),
        };
        if ends <= seconds {
            return Err("token has expired");
        }
        match time("nbf") {
            Some(Ok(starts)) if starts > seconds + AHEAD => return Err("token is not valid yet"),
            Some(Err(())) => return Err("token's nbf is no number"),
            _ => {}
        }
        let text = |name: &str| claims.get(name).and_then(Value::as_str);
        if let Some(issuer) = &config.issuer
            && text("iss") != Some(issuer)
        {
            return Err("token is of another issuer");
        }
        if !config.audience.is_empty()
            && !texts(claims.get("aud"))
                .any(|aud| config.audience.iter().any(|wanted| wanted == aud))
        {
            return Err("token is for another audience");
        }
        let principal = text(&config.principal)
            .filter(|name| password::valid_name(name))
            .ok_or("token names no principal")?;
        Ok(Claims {
            principal: principal.into(),
            grant: self.grant(claims)?,
            // A float beyond the range becomes its end.
            expires: (ends * 1e9) as u64,
            key,
        })
    }

    /// Role and groups, where claims for them are configured; without a role a device.
    fn grant(&self, claims: &Map<String, Value>) -> Result<Grant, &'static str> {
        let claim = |name: &Option<String>| name.as_ref().and_then(|name| claims.get(name));
        let role = match claim(&self.config.role) {
            None => Role::Device,
            Some(value) => value
                .as_str()
                .and_then(|word| word.parse().ok())
                .ok_or("token has a role that is not known")?,
        };
        let groups = claim(&self.config.groups);
        if groups.is_some_and(|groups| !groups.is_string() && !groups.is_array()) {
            return Err("token's groups are neither text nor a list of it");
        }
        // Groups of the issuer's own limit operators; on others they mean nothing here.
        let of_operator = groups.filter(|_| role == Role::Operator);
        let groups: Vec<String> = texts(of_operator).map(str::to_owned).collect();
        // An operator whose groups are left out must not become one of all groups.
        if role == Role::Operator && self.config.groups.is_some() && groups.is_empty() {
            return Err("token names no group of its operator");
        }
        Grant::new(Some(role), groups).map_err(|_| "token has groups that cannot be")
    }
}

fn algorithm(name: &str) -> Option<Algorithm> {
    match name {
        "HS256" => Some(Algorithm::HS256),
        "RS256" => Some(Algorithm::RS256),
        "ES256" => Some(Algorithm::ES256),
        "EdDSA" => Some(Algorithm::EdDSA),
        _ => None,
    }
}

/// The text, or each text of a list.
fn texts(value: Option<&Value>) -> impl Iterator<Item = &str> {
    let one = value.and_then(Value::as_str);
    let many = value.and_then(Value::as_array);
    one.into_iter()
        .chain(many.into_iter().flatten().filter_map(Value::as_str))
}

/// The claims if the signature is the key's. Claims are judged by us: the library asks the clock.
fn signed_by(token: &str, key: &Key) -> Option<Map<String, Value>> {
    let mut validation = Validation::new(key.algorithm);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    jsonwebtoken::decode(token, &key.key, &validation)
        .ok()
        .map(|data| data.claims)
}

fn header(token: &str) -> Option<Map<String, Value>> {
    let (header, _) = token.split_once('.')?;
    serde_json::from_slice(&base64url(header)?).ok()
}

/// Decodes base64url without padding (RFC 4648 section 5).
pub(crate) fn base64url(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() * 3 / 4);
    let (mut bits, mut count) = (0u32, 0);
    for byte in text.bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'-' => 62,
            b'_' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    (count < 6 && bits == 0).then_some(out)
}

#[cfg(test)]
#[path = "jwt_tests.rs"]
mod tests;
