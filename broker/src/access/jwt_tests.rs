use std::path::Path;

use jsonwebtoken::{EncodingKey, Header};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::access::keys;

const SECRET: &str = "a secret of more than thirty-two bytes";
const NOW: u64 = 1_000 * 1_000_000_000;

fn issuer(text: &str, config: Jwt) -> Issuer {
    Issuer {
        keys: keys::parse(Path::new("keys"), text).unwrap(),
        config,
    }
}

fn token(claims: Value) -> String {
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::encode(&Header::default(), &claims, &key).unwrap()
}

fn config() -> Jwt {
    Jwt::default()
}

#[test]
fn a_token_names_its_principal_and_when_it_ends() {
    let issuer = issuer(SECRET, config());
    let token = token(json!({"sub": "lamp", "exp": 1001}));
    assert!(is_jwt(&token));
    let claims = issuer.verify(&token, NOW).unwrap();
    assert_eq!(&*claims.principal, "lamp");
    assert_eq!(claims.grant.role, Some(Role::Device));
    assert_eq!(claims.expires, 1_001_000_000_000);
    assert!(issuer.has(&claims.key));
}

#[test]
fn times_and_names_are_checked() {
    let strict = Jwt {
        issuer: Some("us".into()),
        audience: vec!["logs".into(), "mqtt".into()],
        ..config()
    };
    let strict = issuer(SECRET, strict);
    let good = json!({"sub": "a", "exp": 1001, "nbf": 1030.5, "iss": "us", "aud": ["x", "mqtt"]});
    assert!(strict.verify(&token(good.clone()), NOW).is_ok());
    for (claim, value, said) in [
        ("exp", json!(1000), "expired"),
        ("exp", json!("later"), "no number"),
        ("exp", Value::Null, "no number"),
        ("nbf", json!(1061), "not valid yet"),
        ("iss", json!("them"), "issuer"),
        ("iss", json!(["us"]), "issuer"),
        ("aud", json!("x"), "audience"),
        ("aud", Value::Null, "audience"),
        ("sub", json!("a\nb"), "principal"),
        ("sub", json!(7), "principal"),
        ("sub", json!("$router"), "principal"),
    ] {
        let mut claims = good.clone();
        claims[claim] = value;
        let error = strict.verify(&token(claims), NOW).unwrap_err();
        assert!(error.contains(said), "{claim}: {error}");
    }
    let mut endless = good;
    endless.as_object_mut().unwrap().remove("exp");
    assert!(
        strict
            .verify(&token(endless), NOW)
            .unwrap_err()
            .contains("no exp")
    );
}

#[test]
fn roles_and_groups_come_from_the_claims_that_are_configured() {
    let named = Jwt {
        principal: "email".into(),
        role: Some("role".into()),
        groups: Some("groups".into()),
        ..config()
    };
    let issuer = issuer(SECRET, named);
    let grant = |role: Value, groups: Value| {
        let claims = json!({"email": "a@b", "exp": 1001, "role": role, "groups": groups});
        issuer
            .verify(&token(claims), NOW)
            .map(|claims| claims.grant.to_string())
    };
    assert_eq!(
        grant(json!("operator"), json!(["eu", "us"])).unwrap(),
        "role=operator,group=eu,group=us"
    );
    assert_eq!(
        grant(json!("operator"), json!("eu")).unwrap(),
        "role=operator,group=eu"
    );
    assert_eq!(grant(json!("admin"), json!(["eu"])).unwrap(), "role=admin");
    assert!(grant(json!("boss"), json!(["eu"])).is_err());
    // An operator whose groups cannot be read must not become one of all groups.
    for groups in [json!([]), json!({}), json!([7]), json!("e/u"), Value::Null] {
        assert!(
            grant(json!("operator"), groups.clone()).is_err(),
            "{groups}"
        );
    }
}

#[test]
fn the_key_decides_the_algorithm() {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let public = pair.public_key_pem();
    let issuer = issuer(&public, config());
    let claims = json!({"sub": "admin", "exp": 1001});
    // The classic forgery: the public key, which everybody has, taken as a shared secret.
    for secret in [
        public.as_bytes(),
        public.trim().as_bytes(),
        pair.public_key_raw(),
    ] {
        let forged = jsonwebtoken::encode(
            &Header::default(),
            &claims,
            &EncodingKey::from_secret(secret),
        );
        assert!(issuer.verify(&forged.unwrap(), NOW).is_err());
    }
    let private = EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).unwrap();
    let signed = jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &private).unwrap();
    assert!(issuer.verify(&signed, NOW).is_ok());
    // {"alg":"none"} with no signature.
    let body = signed.split('.').nth(1).unwrap();
    assert!(
        issuer
            .verify(&format!("eyJhbGciOiJub25lIn0.{body}."), NOW)
            .is_err()
    );
}

#[test]
fn a_key_that_the_token_names_is_the_one_that_counts() {
    let other = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA";
    let set = format!(r#"{{"keys": [{{"kty": "oct", "kid": "a", "k": "{other}"}}]}}"#);
    let issuer = issuer(&set, config());
    let sign = |kid: Option<&str>| {
        let header = Header {
            kid: kid.map(str::to_owned),
            ..Header::default()
        };
        let key = EncodingKey::from_secret(&base64url(other).unwrap());
        jsonwebtoken::encode(&header, &json!({"sub": "x", "exp": 1001}), &key).unwrap()
    };
    assert!(issuer.verify(&sign(Some("a")), NOW).is_ok());
    assert!(issuer.verify(&sign(None), NOW).is_ok());
    assert!(issuer.verify(&sign(Some("b")), NOW).is_err());
}

#[test]
fn a_token_that_demands_what_is_not_known_is_refused() {
    // {"alg":"HS256","crit":["x"],"x":1}
    let text = "eyJhbGciOiJIUzI1NiIsImNyaXQiOlsieCJdLCJ4IjoxfQ.e30.AA";
    let error = issuer(SECRET, config()).verify(text, NOW).unwrap_err();
    assert!(error.contains("critical"), "{error}");
}

#[test]
fn a_changed_token_is_not_signed() {
    let issuer = issuer(SECRET, config());
    let good = token(json!({"sub": "lamp", "exp": 1001}));
    for at in 0..good.len() - 1 {
        let mut bytes = good.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(bytes).unwrap();
        assert!(issuer.verify(&changed, NOW).is_err(), "byte {at}");
    }
}

#[test]
fn base64url_is_read_strictly() {
    assert_eq!(base64url("").as_deref(), Some(&[][..]));
    assert_eq!(base64url("_-8").as_deref(), Some(&[0xFF, 0xEF][..]));
    for bad in ["A", "AB=", "A+/A", "AB", "é"] {
        assert_eq!(base64url(bad), None, "{bad}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_the_verifier_panic(text in "(ey|[A-Za-z0-9_-]|\\.|.){0,120}") {
        let _ = is_jwt(&text);
        prop_assert!(issuer(SECRET, config()).verify(&text, NOW).is_err());
    }
}
