//! Keys that tokens of an issuer are verified with: a JWKS file (RFC 7517), a PEM file with one public
//! key, or a file that is a shared secret.
//!
//! The key decides the algorithm, never the token: an RSA key verifies RS256 and nothing else, so that
//! nobody signs with a public key as if it were a secret.

use std::path::Path;

use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse},
};
use sha2::{Digest, Sha256};
use x509_parser::{
    oid_registry::{
        OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_PKCS1_RSAENCRYPTION, OID_SIG_ED25519,
    },
    pem::parse_x509_pem,
    prelude::FromDer,
    x509::SubjectPublicKeyInfo,
};

use super::file::{self, FileError};

/// What makes a file of keys.
const ADVICE: &str = "save the issuer's JWKS, its public key (PEM) or the shared secret there";
/// Most keys of a set: a token that names none is tried with all of its algorithm.
const MAX_KEYS: usize = 100;
/// Shortest secret for HS256, bytes (RFC 7518 section 3.2).
const MIN_SECRET: usize = 32;

/// A key and what it verifies.
pub(crate) struct Key {
    pub(crate) id: Option<String>,
    /// The file is the key.
    is_secret: bool,
    pub(crate) algorithm: Algorithm,
    pub(crate) key: DecodingKey,
    /// Stands for the key in memory.
    pub(crate) fingerprint: [u8; 32],
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({:?}, {:?})", self.id, self.algorithm)
    }
}

/// Reads the keys of a file.
pub(crate) fn read(path: &Path) -> Result<Vec<Key>, FileError> {
    parse(path, &file::read(path, ADVICE)?)
}

/// Reads keys from a file's text; `path` is for complaints.
pub(crate) fn parse(path: &Path, text: &str) -> Result<Vec<Key>, FileError> {
    let wrong = |reason: String| FileError::of(path, reason);
    let keys = match text.trim() {
        text if text.starts_with('{') => return jwks(path, text),
        text if text.contains("-----BEGIN") => pem(text).map_err(wrong)?,
        secret => shared(secret).map_err(wrong)?,
    };
    Ok(vec![keys])
}

/// What the keys of a file are, in a few words.
pub(crate) fn describe(keys: &[Key]) -> String {
    match keys {
        [key] if key.is_secret => "shared secret".into(),
        [key] => format!("public key ({:?})", key.algorithm),
        keys => format!("{} keys", keys.len()),
    }
}

/// What a file holds that is no secret, whatever its length: taken for one it would be a secret that
/// many know.
fn mistaken(text: &str) -> Option<&'static str> {
    let starts = |prefix: &str| {
        text.get(..prefix.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    };
    if starts("<") {
        Some("is HTML or XML")
    } else if starts("[") || starts("\"") {
        Some("is JSON, but no JWKS")
    } else if text.contains("-----") {
        Some("is a part of a PEM file: its first line has to be -----BEGIN PUBLIC KEY-----")
    } else if starts("ssh-") || starts("ecdsa-") {
        Some("is a key for SSH")
    } else if text.contains(['\n', '\r']) {
        Some("has several lines")
    } else if text.contains(char::is_control) {
        Some("has control characters")
    } else {
        None
    }
}

fn shared(secret: &str) -> Result<Key, String> {
    if let Some(what) = mistaken(secret) {
        return Err(format!(
            "{what}; save the issuer's JWKS, its public key (PEM), or a secret in one line there"
        ));
    }
    if secret.len() < MIN_SECRET {
        return Err(format!(
            "is neither JWKS nor PEM, and too short for a secret: at least {MIN_SECRET} bytes"
        ));
    }
    Ok(Key {
        id: None,
        is_secret: true,
        algorithm: Algorithm::HS256,
        key: DecodingKey::from_secret(secret.as_bytes()),
        fingerprint: Sha256::digest(secret).into(),
    })
}

fn pem(text: &str) -> Result<Key, String> {
    let (_, pem) =
        parse_x509_pem(text.as_bytes()).map_err(|_| "is no PEM that can be read".to_owned())?;
    if pem.label != "PUBLIC KEY" {
        return Err(format!(
            "is a {:?}; tokens are verified with a \"PUBLIC KEY\" (openssl pkey -pubout)",
            pem.label
        ));
    }
    let (_, info) = SubjectPublicKeyInfo::from_der(&pem.contents)
        .map_err(|_| "is no public key that can be read".to_owned())?;
    let bytes = info.subject_public_key.data.as_ref();
    let curve = || {
        let parameters = info.algorithm.parameters.as_ref();
        parameters.and_then(|parameters| parameters.as_oid().ok())
    };
    let kind = &info.algorithm.algorithm;
    let (algorithm, key) = if *kind == OID_PKCS1_RSAENCRYPTION {
        (Algorithm::RS256, DecodingKey::from_rsa_der(bytes))
    } else if *kind == OID_KEY_TYPE_EC_PUBLIC_KEY && curve() == Some(OID_EC_P256) {
        (Algorithm::ES256, DecodingKey::from_ec_der(bytes))
    } else if *kind == OID_SIG_ED25519 {
        (Algorithm::EdDSA, DecodingKey::from_ed_der(bytes))
    } else {
        return Err("is a key of a kind that is not taken: RSA, EC P-256 or Ed25519".into());
    };
    Ok(Key {
        id: None,
        is_secret: false,
        algorithm,
        key,
        fingerprint: Sha256::digest(&pem.contents).into(),
    })
}

/// A JWKS; keys of a kind or for a use that is not ours are passed over (RFC 7517 section 5).
fn jwks(path: &Path, text: &str) -> Result<Vec<Key>, FileError> {
    #[derive(serde::Deserialize)]
    struct Set {
        keys: Vec<serde_json::Value>,
    }
    let set: Set = serde_json::from_str(text)
        .map_err(|error| FileError::at(path, error.line(), format!("is no JWKS: {error}")))?;
    let keys: Vec<Key> = set
        .keys
        .into_iter()
        .take(MAX_KEYS)
        .filter_map(|value| {
            let bytes = value.to_string();
            let jwk: Jwk = serde_json::from_value(value).ok()?;
            jwk_key(&jwk, Sha256::digest(bytes).into())
        })
        .collect();
    if keys.is_empty() {
        return Err(FileError::of(
            path,
            "holds no key that verifies HS256, RS256, ES256 or EdDSA",
        ));
    }
    Ok(keys)
}

fn jwk_key(jwk: &Jwk, fingerprint: [u8; 32]) -> Option<Key> {
    let algorithm = match &jwk.algorithm {
        AlgorithmParameters::OctetKey(_) => Algorithm::HS256,
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        AlgorithmParameters::EllipticCurve(of) if of.curve == EllipticCurve::P256 => {
            Algorithm::ES256
        }
        AlgorithmParameters::OctetKeyPair(of) if of.curve == EllipticCurve::Ed25519 => {
            Algorithm::EdDSA
        }
        _ => return None,
    };
    let named = match jwk.common.key_algorithm {
        None => algorithm,
        Some(KeyAlgorithm::HS256) => Algorithm::HS256,
        Some(KeyAlgorithm::RS256) => Algorithm::RS256,
        Some(KeyAlgorithm::ES256) => Algorithm::ES256,
        Some(KeyAlgorithm::EdDSA) => Algorithm::EdDSA,
        Some(_) => return None,
    };
    let signs = matches!(
        jwk.common.public_key_use,
        None | Some(PublicKeyUse::Signature)
    );
    if named != algorithm || !signs {
        return None;
    }
    if let AlgorithmParameters::OctetKey(key) = &jwk.algorithm
        && super::jwt::base64url(&key.value)?.len() < MIN_SECRET
    {
        return None;
    }
    Some(Key {
        id: jwk.common.key_id.clone(),
        is_secret: false,
        algorithm,
        key: DecodingKey::from_jwk(jwk).ok()?,
        fingerprint,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read_text(text: &str) -> Result<Vec<Key>, FileError> {
        parse(Path::new("keys"), text)
    }

    #[test]
    fn the_kind_of_a_pem_key_decides_its_algorithm() {
        for (made, algorithm) in [
            (&rcgen::PKCS_ECDSA_P256_SHA256, Algorithm::ES256),
            (&rcgen::PKCS_ED25519, Algorithm::EdDSA),
        ] {
            let pair = rcgen::KeyPair::generate_for(made).unwrap();
            let keys = read_text(&pair.public_key_pem()).unwrap();
            assert_eq!(keys[0].algorithm, algorithm);
        }
    }

    #[test]
    fn what_verifies_nothing_is_refused_with_what_would() {
        let private = rcgen::KeyPair::generate().unwrap().serialize_pem();
        let p384 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        for (text, said) in [
            (private.as_str(), "openssl pkey -pubout"),
            (&p384.public_key_pem(), "EC P-256"),
            ("-----BEGIN PUBLIC KEY-----\nxx", "no PEM"),
            ("short", "at least 32 bytes"),
            (
                "<!DOCTYPE html><html><body>not found</body></html>",
                "is HTML",
            ),
            (
                "[{\"kty\": \"oct\"}, {\"kty\": \"RSA\"}, {}, {}]",
                "no JWKS",
            ),
            ("\"a text of JSON that is long enough for it\"", "no JWKS"),
            (
                "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE\n-----END PUBLIC KEY-----",
                "part of a PEM",
            ),
            (
                "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9",
                "for SSH",
            ),
            (
                "one line of a file that is not a secret\nand another",
                "several lines",
            ),
            ("{", "keys:1: is no JWKS"),
            ("{\"keys\": []}", "holds no key"),
            (
                r#"{"keys": [{"kty": "oct", "k": "c2hvcnQ"}]}"#,
                "holds no key",
            ),
            (
                r#"{"keys": [{"kty": "EC", "crv": "P-256", "alg": "HS256", "x": "AA", "y": "AA"}]}"#,
                "holds no key",
            ),
        ] {
            let error = read_text(text).unwrap_err().to_string();
            assert!(error.contains(said), "{text}: {error}");
        }
    }

    #[test]
    fn keys_are_named_for_what_they_are() {
        let secret = read_text("a secret of more than thirty-two bytes\n").unwrap();
        assert_eq!(describe(&secret), "shared secret");
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let public = read_text(&pair.public_key_pem()).unwrap();
        assert_eq!(describe(&public), "public key (EdDSA)");
    }

    #[test]
    fn keys_that_are_not_ours_are_passed_over() {
        let secret = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA";
        let text = format!(
            r#"{{"keys": [{{"kty": "quantum"}}, {{"kty": "oct", "k": "{secret}", "use": "enc"}},
                {{"kty": "oct", "k": "{secret}", "kid": "a"}}]}}"#
        );
        let keys = read_text(&text).unwrap();
        assert_eq!(keys.len(), 1);
        assert_eq!(keys[0].id.as_deref(), Some("a"));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "(\\{\"keys\":\\[|-----BEGIN PUBLIC KEY-----\n|\"kty\":\"oct\"|.|\\}|\\]){0,40}") {
            let _ = read_text(&text);
        }
    }
}
