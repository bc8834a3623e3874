use axum::http::Request;
use proptest::prelude::*;

use super::*;

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const STAMP: &str = "20150830T123600Z";

fn at(text: &str) -> u64 {
    json::parse_time(text).unwrap()
}

fn request(method: &str, target: &str, headers: &[(&str, &str)]) -> Parts {
    let mut builder = Request::builder().method(method).uri(target);
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(()).unwrap().into_parts().0
}

/// Method, target, headers beside host and date, body, signature.
type Vector = (
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str)],
    &'static str,
    &'static str,
);

/// The requests of AWS's "Signature Version 4 test suite" with the signatures it gives, as far as they
/// are requests that can arrive; the last three, whose paths and queries arrive encoded, are by botocore.
const VECTORS: [Vector; 20] = [
    (
        "GET",
        "/",
        &[],
        "",
        "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
    ),
    (
        "POST",
        "/",
        &[],
        "",
        "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
    ),
    (
        "GET",
        "/?Param2=value2&Param1=value1",
        &[],
        "",
        "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
    ),
    (
        "GET",
        "/?Param1=value1",
        &[],
        "",
        "a67d582fa61cc504c4bae71f336f98b97f1ea3c7a6bfe1b6e45aec72011b9aeb",
    ),
    (
        "GET",
        "/-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
        &[],
        "",
        "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f",
    ),
    (
        "GET",
        "//example//",
        &[],
        "",
        "9a624bd73a37c9a373b5312afbebe7a714a789de108f0bdfe846570885f57e84",
    ),
    (
        "GET",
        "/example/..",
        &[],
        "",
        "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
    ),
    (
        "GET",
        "/example1/example2/../..",
        &[],
        "",
        "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
    ),
    (
        "GET",
        "/./",
        &[],
        "",
        "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
    ),
    (
        "GET",
        "/./example",
        &[],
        "",
        "ef75d96142cf21edca26f06005da7988e4f8dc83a165a80865db7089db637ec5",
    ),
    (
        "GET",
        "/?-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz=-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
        &[],
        "",
        "9c3e54bfcdf0b19771a7f523ee5669cdf59bc7cc0884027167c21bb143a40197",
    ),
    (
        "POST",
        "/?Param1=value1",
        &[],
        "",
        "28038455d6de14eafc1f9222cf5aa6f1a96197d7deb8263271d420d138af7f11",
    ),
    (
        "GET",
        "/",
        &[("My-Header1", " value1"), ("My-Header2", " \"a   b   c\"")],
        "",
        "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
    ),
    (
        "GET",
        "/",
        &[
            ("My-Header1", "value2"),
            ("My-Header1", "value2"),
            ("My-Header1", "value1"),
        ],
        "",
        "c9d5ea9f3f72853aea855b47ea873832890dbdd183b4468f858259531a5138ea",
    ),
    (
        "POST",
        "/",
        &[("My-Header1", "VALUE1")],
        "",
        "cdbc9802e29d2942e5e10b5bccfdd67c5f22c7c4e8ae67b53629efa58b974b7d",
    ),
    (
        "POST",
        "/",
        &[("Content-Type", "application/x-www-form-urlencoded")],
        "Param1=value1",
        "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
    ),
    (
        "POST",
        "/",
        &[(
            "Content-Type",
            "application/x-www-form-urlencoded; charset=utf8",
        )],
        "Param1=value1",
        "1a72ec8f64bd914b0e42e42607c7fbce7fb2c7465f63e3092b3b0d39fa77a6fe",
    ),
    (
        "GET",
        "/%E1%88%B4",
        &[],
        "",
        "697b34846207a3f72246f99d74ae1ee4fe54f44bb06730c58a0d339eb079596d",
    ),
    (
        "GET",
        "/example%20space/",
        &[],
        "",
        "446b817944c553435b35e813c261ff4e161fff982d1bacdef1c87f6785dd1662",
    ),
    (
        "GET",
        "/?%E1%88%B4=bar",
        &[],
        "",
        "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04",
    ),
];

#[test]
fn signatures_are_those_of_aws() {
    for (method, target, headers, body, signature) in VECTORS {
        let mut all = vec![("Host", "example.amazonaws.com"), ("X-Amz-Date", STAMP)];
        all.extend(headers);
        let mut names: Vec<String> = all
            .iter()
            .map(|(name, _)| name.to_ascii_lowercase())
            .collect();
        names.sort();
        names.dedup();
        let authorization = format!(
            "{ALGORITHM} Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
             SignedHeaders={}, Signature={signature}",
            names.join(";")
        );
        let authorization = Authorization::parse(&authorization).unwrap();
        let request = request(method, target, &all);
        let hash = body_hash(&request, body.as_bytes()).unwrap();
        let expected = authorization.expected(SECRET, &request, &hash, STAMP);
        assert_eq!(
            expected.unwrap(),
            signature,
            "{method} {target} {headers:?}"
        );
    }
}

/// A request for IoT, signed as it should be but for what is told: its verdict.
struct Attempt {
    target: &'static str,
    signed_headers: &'static str,
    scope: &'static str,
    secret: &'static str,
    extra: Vec<(&'static str, &'static str)>,
    body: &'static str,
    arrived: &'static str,
    now: &'static str,
}

impl Default for Attempt {
    fn default() -> Attempt {
        Attempt {
            target: "/v2LoggingOptions",
            signed_headers: "host;x-amz-date",
            scope: "20150830/eu-central-1/iot/aws4_request",
            secret: SECRET,
            extra: Vec::new(),
            body: "{}",
            arrived: "{}",
            now: "2015-08-30T12:36:00Z",
        }
    }
}

impl Attempt {
    fn verdict(&self) -> Result<(), Error> {
        let mut headers = vec![("host", "localhost:8080"), ("x-amz-date", STAMP)];
        headers.extend(self.extra.iter().copied());
        let request = request("POST", self.target, &headers);
        let header = |signature: &str| {
            format!(
                "{ALGORITHM} Credential=AKIDEXAMPLE/{}, SignedHeaders={}, Signature={signature}",
                self.scope, self.signed_headers
            )
        };
        let unsigned = header("0");
        let signed = Authorization::parse(&unsigned)?;
        let hash = body_hash(&request, self.body.as_bytes())?;
        let signature = signed.expected(self.secret, &request, &hash, STAMP)?;
        let header = header(&signature);
        let signed = Authorization::parse(&header)?;
        signed.verify(SECRET, &request, self.arrived.as_bytes(), at(self.now))
    }
}

#[test]
fn a_signed_request_is_taken_for_each_service_and_any_region() {
    assert_eq!(Attempt::default().verdict(), Ok(()));
    for scope in [
        "20150830/mars-north-1/execute-api/aws4_request",
        "20150830/us-east-1/thinglog/aws4_request",
    ] {
        assert_eq!(
            Attempt {
                scope,
                ..Attempt::default()
            }
            .verdict(),
            Ok(())
        );
    }
}

#[test]
fn what_arrived_is_what_was_signed() {
    let tampered = Attempt {
        arrived: "{\"disableAllLogs\":true}",
        ..Attempt::default()
    };
    assert_eq!(tampered.verdict(), Err(Error::Mismatch));
    let other = Attempt {
        secret: "other",
        ..Attempt::default()
    };
    assert_eq!(other.verdict(), Err(Error::Mismatch));
}

#[test]
fn every_part_of_the_head_is_signed() {
    let authorization = |signature: &str| {
        format!(
            "{ALGORITHM} Credential=K/20150830/r/iot/aws4_request, SignedHeaders=host;x-amz-date, Signature={signature}"
        )
    };
    let headers = [("host", "localhost"), ("x-amz-date", STAMP)];
    let original = request("GET", "/things/a?maxResults=1", &headers);
    let blank = authorization("0");
    let signed = Authorization::parse(&blank).unwrap();
    let hash = body_hash(&original, b"").unwrap();
    let signature = signed.expected(SECRET, &original, &hash, STAMP).unwrap();
    let header = authorization(&signature);
    let verify = |request: &Parts| {
        let signed = Authorization::parse(&header).unwrap();
        signed.verify(SECRET, request, b"", at("2015-08-30T12:36:00Z"))
    };
    assert_eq!(verify(&original), Ok(()));
    for changed in [
        request("DELETE", "/things/a?maxResults=1", &headers),
        request("GET", "/things/b?maxResults=1", &headers),
        request("GET", "/things/a?maxResults=2", &headers),
        request("GET", "/things/a", &headers),
        request(
            "GET",
            "/things/a?maxResults=1",
            &[("host", "other"), headers[1]],
        ),
        request(
            "GET",
            "/things/a?maxResults=1",
            &[headers[0], ("x-amz-date", "20150830T123601Z")],
        ),
    ] {
        assert_eq!(verify(&changed), Err(Error::Mismatch), "{changed:?}");
    }
}

#[test]
fn the_clocks_may_differ_by_fifteen_minutes() {
    for (now, expected) in [
        ("2015-08-30T12:51:00Z", true),
        ("2015-08-30T12:21:00Z", true),
        ("2015-08-30T12:51:01Z", false),
        ("2015-08-30T12:20:59Z", false),
        ("2025-08-30T12:36:00Z", false),
        ("1970-01-01T00:00:00Z", false),
    ] {
        let verdict = Attempt {
            now,
            ..Attempt::default()
        }
        .verdict();
        assert_eq!(verdict.is_ok(), expected, "{now}: {verdict:?}");
    }
    let late = Attempt {
        now: "2015-08-30T13:36:00Z",
        ..Attempt::default()
    }
    .verdict();
    let text = late.unwrap_err().to_string();
    assert!(
        text.contains(STAMP) && text.contains("2015-08-30T13:36:00"),
        "{text}"
    );
}

#[test]
fn host_and_amazon_headers_must_be_signed() {
    let without = |signed_headers| {
        Attempt {
            signed_headers,
            ..Attempt::default()
        }
        .verdict()
    };
    assert_eq!(without("x-amz-date"), Err(Error::Uncovered("host".into())));
    assert_eq!(without("host"), Err(Error::Uncovered("x-amz-date".into())));
    assert_eq!(
        without("host;x-amz-date;x-there"),
        Err(Error::Uncovered("x-there".into()))
    );
    let added = Attempt {
        extra: vec![("x-amz-target", "x")],
        ..Attempt::default()
    };
    assert_eq!(
        added.verdict(),
        Err(Error::Uncovered("x-amz-target".into()))
    );
}

#[test]
fn a_body_may_be_left_out_of_the_signature_by_who_signs_only() {
    let signed_headers = "host;x-amz-content-sha256;x-amz-date";
    let unsigned = |extra, signed_headers| Attempt {
        extra,
        signed_headers,
        arrived: "anything",
        ..Attempt::default()
    };
    let header = vec![("x-amz-content-sha256", "UNSIGNED-PAYLOAD")];
    assert_eq!(unsigned(header.clone(), signed_headers).verdict(), Ok(()));
    let added = unsigned(header, "host;x-amz-date").verdict();
    assert_eq!(added, Err(Error::Uncovered("x-amz-content-sha256".into())));
    let wrong = Attempt {
        extra: vec![(
            "x-amz-content-sha256",
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        )],
        signed_headers,
        ..Attempt::default()
    };
    assert_eq!(wrong.verdict(), Err(Error::Body));
}

#[test]
fn a_scope_is_of_the_day_and_a_service_here_and_there_are_no_session_tokens() {
    for scope in [
        "20150831/us-east-1/iot/aws4_request",
        "2015/us-east-1/iot/aws4_request",
        "20150830/us-east-1/s3/aws4_request",
        "20150830/us-east-1/iot/aws5_request",
    ] {
        let verdict = Attempt {
            scope,
            ..Attempt::default()
        }
        .verdict();
        assert!(
            matches!(verdict, Err(Error::Scope(_))),
            "{scope}: {verdict:?}"
        );
    }
    let token = Attempt {
        extra: vec![("x-amz-security-token", "x")],
        signed_headers: "host;x-amz-date;x-amz-security-token",
        ..Attempt::default()
    };
    assert_eq!(token.verdict(), Err(Error::SessionToken));
}

#[test]
fn an_incomplete_header_is_told_what_is_missing() {
    for (value, missing) in [
        ("Basic x", "algorithm"),
        ("AWS4-HMAC-SHA256", "expected Credential"),
        (
            "AWS4-HMAC-SHA256 SignedHeaders=host, Signature=0",
            "Credential is missing",
        ),
        (
            "AWS4-HMAC-SHA256 Credential=a/b/c/d/e, Signature=0",
            "SignedHeaders is missing",
        ),
        (
            "AWS4-HMAC-SHA256 Credential=a/b/c/d/e, SignedHeaders=host",
            "Signature is missing",
        ),
        (
            "AWS4-HMAC-SHA256 Credential=a/b/c, SignedHeaders=host, Signature=0",
            "KEY/DAY",
        ),
        (
            "AWS4-HMAC-SHA256 Credential=a/b/c/d/e, Credential=a/b/c/d/e",
            "twice",
        ),
    ] {
        let error = Authorization::parse(value).unwrap_err();
        assert!(error.to_string().contains(missing), "{value}: {error}");
        assert_eq!(error.answer().1, "IncompleteSignatureException");
    }
    for date in [
        "",
        "2015-08-30T12:36:00Z",
        "20150830T123600",
        "20150830T1236é0",
    ] {
        assert_eq!(parse_date(date), None, "{date}");
    }
}

proptest! {
    #[test]
    fn no_header_makes_the_reader_panic(
        value in "(AWS4-HMAC-SHA256|Credential=|SignedHeaders=|Signature=|[a-z0-9/;, %é]){0,12}",
        path in "/[a-z%0-9./]{0,20}",
        query in "[a-z%0-9=&+]{0,20}",
    ) {
        if let Ok(signed) = Authorization::parse(&value) {
            let _ = signed.verify("secret", &request("GET", "/", &[("x-amz-date", &value.replace('é', ""))]), b"", 0);
        }
        let _ = (sigv4::canonical_path(&path), sigv4::canonical_query(&query), parse_date(&value));
    }
}
