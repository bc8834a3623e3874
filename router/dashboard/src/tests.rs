use axum::body::Body;
use axum::http::{Method, Request};
use flate2::read::GzDecoder;
use http_body_util::BodyExt;
use std::io::Read;
use tower::ServiceExt;

use super::*;

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

async fn ask(method: Method, path: &str, headers: &[(HeaderName, &str)]) -> Answer {
    let mut request = Request::new(Body::empty());
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    let (parts, body) = routes().oneshot(request).await.unwrap().into_parts();
    Answer {
        status: parts.status,
        headers: parts.headers,
        body: body.collect().await.unwrap().to_bytes().to_vec(),
    }
}

async fn get(path: &str, headers: &[(HeaderName, &str)]) -> Answer {
    ask(Method::GET, path, headers).await
}

#[tokio::test]
async fn every_page_is_the_one_file_under_a_strict_policy() {
    let index = get("/", &[]).await;
    assert!(index.body.starts_with(b"<!doctype html>"));
    for path in [
        "/",
        "/devices/lamp-7",
        "/devices/a%20b",
        "/logs?device=a",
        "/levels",
        "/destinations",
        "/sign-in",
    ] {
        let answer = get(path, &[]).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
        assert_eq!(answer.body, index.body);
        assert_eq!(answer.headers[CONTENT_TYPE], "text/html; charset=utf-8");
        assert_eq!(answer.headers[X_CONTENT_TYPE_OPTIONS], "nosniff");
        assert_eq!(answer.headers[REFERRER_POLICY], "no-referrer");
        let policy = answer.headers[CONTENT_SECURITY_POLICY].to_str().unwrap();
        for part in [
            "default-src 'none'",
            "script-src 'self'",
            "frame-ancestors 'none'",
        ] {
            assert!(policy.contains(part), "{policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
    }
}

#[tokio::test]
async fn what_is_known_is_not_sent_again() {
    let first = get("/", &[]).await;
    let tag = first.headers[ETAG].to_str().unwrap();
    let again = get("/", &[(IF_NONE_MATCH, tag)]).await;
    assert_eq!(again.status, StatusCode::NOT_MODIFIED);
    assert!(again.body.is_empty());
    assert_eq!(again.headers[ETAG], tag);
    let other = get("/", &[(IF_NONE_MATCH, "\"other\"")]).await;
    assert_eq!(other.status, StatusCode::OK);
}

#[tokio::test]
async fn what_is_large_is_compressed_for_who_takes_it_under_a_tag_of_its_own() {
    let plain = get("/", &[]).await;
    let packed = get("/", &[(ACCEPT_ENCODING, "gzip, br")]).await;
    assert_eq!(packed.headers[VARY], "accept-encoding");
    assert_eq!(packed.headers[CONTENT_ENCODING], "gzip");
    assert_ne!(packed.headers[ETAG], plain.headers[ETAG]);
    assert!(packed.body.len() < plain.body.len());
    let mut unpacked = Vec::new();
    GzDecoder::new(&*packed.body)
        .read_to_end(&mut unpacked)
        .unwrap();
    assert_eq!(unpacked, plain.body);
}

#[tokio::test]
async fn a_head_is_the_answer_without_its_body() {
    let whole = get("/", &[]).await;
    let head = ask(Method::HEAD, "/", &[]).await;
    assert_eq!(head.status, StatusCode::OK);
    assert!(head.body.is_empty());
    assert_eq!(head.headers[ETAG], whole.headers[ETAG]);
    assert_eq!(
        head.headers["content-length"],
        whole.body.len().to_string().as_str()
    );
    let posted = ask(Method::POST, "/", &[]).await;
    assert_eq!(posted.status, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn nothing_but_the_folder_is_reached_by_a_path() {
    for path in [
        "/assets/",
        "/assets/none.js",
        "/assets/..%2fweb%2findex.html",
        "/assets/.%2findex.html",
        "/assets//index.html",
        "/assets/../../Cargo.toml",
        "/assets/..%2f..%2fCargo.toml",
        "/assets/%2fetc%2fpasswd",
    ] {
        let answer = get(path, &[]).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
    }
    let found = get("/assets/index.html", &[]).await;
    assert_eq!(found.status, StatusCode::OK);
    let missing = get("/assets/none.js", &[]).await;
    assert_eq!(missing.headers[X_CONTENT_TYPE_OPTIONS], "nosniff");
}
